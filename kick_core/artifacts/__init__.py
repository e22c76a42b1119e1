"""Weight artifacts of one model: building them, switching the open model between them, exporting them."""
