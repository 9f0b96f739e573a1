"""Networks of one kind of input or of all, late fusion, and the published network, as registered models."""

from collections.abc import Sequence
from typing import Any, ClassVar

from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.pipeline import Pipeline

from mmdls.estimators import MMDLS, TabularEncoder
from mmdls.registry import models
from mmdls.search import OptunaSearch
from mmdls.training._trainer import Trainer
from mmdls.zoo._cross_fitted import CrossFittedEmbeddings
from mmdls.zoo._embedding_search import EmbeddingSearch, FirstFold
from mmdls.zoo._inputs import SelectInputs
from mmdls.zoo._late_fusion import LateFusion
from mmdls.zoo._tables import ClinicalLinear, PetLinear, RadiomicsLinear, TablesLinear

__all__ = ["tuned_network"]


def tuned_network(inputs: Sequence[str]) -> Pipeline:
    """MMDLS on some inputs, tuned on embeddings that are learned once.

    Parameters
    ----------
    inputs : sequence of str
        As in :class:`mmdls.zoo.SelectInputs`.

    Returns
    -------
    Pipeline
        Unfitted.
    """
    space = {
        "hidden_features": CategoricalDistribution([32, 64]),
        "dropout": FloatDistribution(0.1, 0.6),
        "trainer__weight_decay": FloatDistribution(1e-2, 1.0, log=True),
    }
    return Pipeline([("inputs", SelectInputs(tuple(inputs))), ("model", EmbeddingSearch(_network(), space))])


def _network() -> MMDLS:
    # All training rows are learned from, as by the other models.
    trainer = Trainer(batch_size=64, max_epochs=40, weight_decay=0.1, validation_fraction=0.0)
    encoder = TabularEncoder(linear=False)
    return MMDLS(table_encoder=encoder, dropout=0.2, n_members=1, trainer=trainer, random_state=0)


class _Network:
    tasks: ClassVar = ("survival", "ordinal", "nominal", "regression", "competing_risks")
    inputs: ClassVar[tuple[str, ...]]

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        return tuned_network(cls.inputs)


@models.register("clinical_network")
class ClinicalNetwork(_Network):
    """MMDLS on clinical variables, tuned."""

    inputs = ("clinical",)


@models.register("radiomics_network")
class RadiomicsNetwork(_Network):
    """MMDLS on radiomics, tuned."""

    inputs = ("radiomics",)


@models.register("tables_network")
class TablesNetwork(_Network):
    """MMDLS on all tables, tuned."""

    inputs = ("tables",)


@models.register("imaging_network")
class ImagingNetwork(_Network):
    """MMDLS on all images, tuned, trained end to end."""

    inputs = ("images",)


@models.register("multimodal_network")
class MultimodalNetwork(_Network):
    """MMDLS on all tables and images, tuned, trained end to end."""

    inputs = ("tables", "images")


@models.register("tables_images_linear")
class TablesImagesLinear:
    """Ridge Cox and logistic regression of tables and embeddings, tuned.

    The embeddings are those of networks of the images that have not learned the outcomes of the rows that they embed.
    """

    tasks = TablesLinear.tasks
    inputs = ("tables", "images")

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        linear = TablesLinear.build()[-1]
        return Pipeline([("inputs", SelectInputs(cls.inputs)), ("model", CrossFittedEmbeddings(_network(), linear))])


@models.register("late_fusion")
class LateFusionModel:
    """One tuned model a modality, joined by a regression.

    Clinical variables and images, PET and radiomics where the cohort has them.
    """

    tasks = ("survival", "ordinal", "nominal")
    inputs = ("clinical", "images")

    @staticmethod
    def build() -> Pipeline:
        """An unfitted estimator."""
        parts: dict[str, Any] = {
            "clinical": ClinicalLinear,
            "imaging": ImagingNetwork,
            "pet": PetLinear,
            "radiomics": RadiomicsLinear,
        }
        each = [(name, part.build()) for name, part in parts.items()]
        return Pipeline([("inputs", SelectInputs(("tables", "images"))), ("model", LateFusion(each))])


@models.register("published_network")
class PublishedNetwork:
    """The published network and recipe, learning rate tuned.

    Numbers are standardised and slices keep their size, which the publication did not do.
    """

    tasks = ("survival", "ordinal", "nominal")
    inputs = ("lesion", "lung", "radiomics", "pet", "clinical")

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        # On raw numbers the network ended with one risk for everybody, and 224 x 224 repeats pixels of smaller slices.
        scales: dict[str, Any] = {f"{block}__scale": "standard" for block in ("radiomics", "pet", "clinical")}
        sizes: dict[str, Any] = {f"{image}__image_size": None for image in ("lesion", "lung")}
        network = MMDLS.published(random_state=0, **scales, **sizes)
        space = {"trainer__learning_rate": FloatDistribution(3e-5, 3e-3, log=True)}
        search = OptunaSearch(network, space, cv=FirstFold(), n_trials=3, random_state=0)
        return Pipeline([("inputs", SelectInputs(cls.inputs)), ("model", search)])
