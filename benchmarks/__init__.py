"""What iglens costs, against the bare product and the neighbours: `make bench`.

`pairs`, `product`, `oracle` and `neighbours` need torch alone: they also run in the
neighbours' environments, where there is no iglens.
"""
