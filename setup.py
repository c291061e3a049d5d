"""What pyproject.toml cannot say: in a wheel ``conf/`` lies inside the package ``experiment``."""

from setuptools import find_namespace_packages, setup

ROOTS = ("experiment", "hydra_plugins", "lightning_modules", "custom_backend", "benchmarks")

setup(
    packages=[
        *find_namespace_packages(include=[pattern for root in ROOTS for pattern in (root, f"{root}.*")]),
        "experiment.conf",
    ],
    package_dir={"experiment.conf": "conf"},
    package_data={
        "experiment.conf": ["**/*.yaml", "**/*.report"],
        "experiment.report": ["*.html"],
        "lightning_modules.data": ["*.npz"],
    },
)
