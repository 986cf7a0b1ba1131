"""Every arm on every task, with intervals, and the page that shows them."""
