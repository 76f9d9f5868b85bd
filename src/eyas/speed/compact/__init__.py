"""A batch without what need not be computed: no padding, no beginning twice, no score that no loss asks for.

`layout` says which tokens of a batch are kept and who reads whom, `attention` and `mask` make a model keep to it,
`forward` puts it around a model, and `probe` proves on that model that nothing but the work has changed.
"""
