"""The explorer's entry: `streamlit run app.py` (or `kick app`). Menu and settings are in pages/parts/frame.py."""

from pages.parts.frame import main

main()
