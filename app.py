"""The explorer's entry: `streamlit run app.py` or `kick app`. The menu is in kick_core/explorer/frame.py."""

from kick_core.explorer.frame import main

main()
