"""The panels of the page, a file each: those here stand on every page that has their data."""
