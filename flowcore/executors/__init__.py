"""Where actions run: the contract (`base`), and the executors that need nothing installed."""
