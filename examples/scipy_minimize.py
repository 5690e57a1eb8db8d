"""SciPy minimizes; nncompiler gives it the function, the gradient and the Hessian, all compiled.

First Rosenbrock's valley in ten dimensions (minimum 0 at 1, ..., 1), then logistic regression on
scikit-learn's 569 breast-cancer records.

    python examples/scipy_minimize.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer

import nncompiler as nnc


def rosenbrock(x: Any) -> Any:
    a, b = x[:-1], x[1:]
    return nnc.sum(100 * (b - a * a) ** 2 + (1 - a) ** 2)


def logistic(w: Any, x: Any, y: Any) -> Any:
    """Mean of ln(1 + exp(-y x.w)) + 1e-3 |w|^2, with labels y = -1 or 1.

    ln(1 + e^-m) is written so that it never overflows.
    """
    margin = y * (x @ w)
    loss = nnc.log1p(nnc.exp(-abs(margin))) + nnc.maximum(-margin, 0)
    return nnc.mean(loss) + 1e-3 * nnc.sum(w * w)


def solve(name: str, function: Any, start: np.ndarray, data: tuple[np.ndarray, ...] = ()) -> Any:
    """Minimize without, with first, and with second derivatives; print what each way cost."""
    f, gradient, hessian = nnc.jit(function), nnc.grad(function), nnc.hessian(function)
    ways = {
        "differences (BFGS)": {"method": "BFGS"},
        "gradient (BFGS)": {"method": "BFGS", "jac": gradient},
        "Hessian (trust-exact)": {"method": "trust-exact", "jac": gradient, "hess": hessian},
    }
    print(name)
    for way, options in ways.items():
        result = minimize(lambda w, *d: float(f(w, *d)), start, args=data, **options)
        print(f"  {way:22s} minimum {result.fun:.3e}, {result.nfev:4d} calls of f")
    return result


def main() -> None:
    best = solve("Rosenbrock, 10 variables", rosenbrock, np.zeros(10))
    print("  found:", best.x.round(6))

    x, t = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # the last weight is the bias
    y = 2.0 * t - 1
    best = solve("logistic regression, 31 weights", logistic, np.zeros(31), (x, y))
    print("  records on the right side:", np.mean((x @ best.x > 0) == (t == 1)).round(4))
    if abs(best.jac).max() > 1e-4:
        raise SystemExit("not a minimum")


if __name__ == "__main__":
    main()
