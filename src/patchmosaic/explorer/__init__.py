"""A page that shows the theory at work: noise becoming a mosaic, and where each pixel comes from."""
