"""What happens to images on their way to a model: noise, blur, weather, screens, viewpoints.

The fifteen common corruptions of Hendrycks & Dietterich 2019, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", and six that products meet besides. Each is a
function of a batch, float32 N×3×S×S in 0..1, a generator, and its own parameters; `levels` has
these at five severities, `names` lists them all, and `suite` applies one.
"""
