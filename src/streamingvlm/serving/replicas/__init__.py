"""Several replicas of the model behind the one scheduler: how many (`policy`), which of them has which stream (`fleet`), what one is (`replica`), and
where Ray Serve runs them (`on_ray`, the only module that needs Ray)."""
