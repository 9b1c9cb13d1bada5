"""A sweep as one page: an HTML file for a browser without a network, and the same page during a sweep."""
