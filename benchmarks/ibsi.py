"""Radiomics and SUVpeak against the consensus values of the IBSI digital phantom.

``MMDLS_DATA=DIR python -m benchmarks.ibsi`` reads ``DIR/ibsi_digital_phantom`` and prints what docs/radiomics.md shows;
``--engine pyradiomics`` takes the other engine.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from mmdls import PETFeatures, RadiomicsExtractor
from mmdls.scans import read_scan

# Our names and the tags of IBSI, by class; the second word of a class is how IBSI aggregates it.
TAGS = {
    "firstorder": (
        "10th_percentile=stat_p10 90th_percentile=stat_p90 energy=stat_energy entropy=ih_entropy "
        "interquartile_range=stat_iqr kurtosis=stat_kurt maximum=stat_max mean=stat_mean "
        "mean_absolute_deviation=stat_mad median=stat_median minimum=stat_min range=stat_range "
        "robust_mean_absolute_deviation=stat_rmad root_mean_squared=stat_rms skewness=stat_skew "
        "uniformity=ih_uniformity variance=stat_var",
        "",
    ),
    "shape": (
        "elongation=morph_pca_elongation flatness=morph_pca_flatness least_axis_length=morph_pca_least_axis "
        "major_axis_length=morph_pca_maj_axis minor_axis_length=morph_pca_min_axis maximum_3d_diameter=morph_diam "
        "mesh_volume=morph_volume sphericity=morph_sphericity surface_area=morph_area_mesh "
        "surface_volume_ratio=morph_av voxel_volume=morph_vol_approx",
        "",
    ),
    "glcm": (
        "autocorrelation=cm_auto_corr cluster_prominence=cm_clust_prom cluster_shade=cm_clust_shade "
        "cluster_tendency=cm_clust_tend contrast=cm_contrast correlation=cm_corr difference_average=cm_diff_avg "
        "difference_entropy=cm_diff_entr difference_variance=cm_diff_var id=cm_inv_diff idm=cm_inv_diff_mom "
        "idmn=cm_inv_diff_mom_norm idn=cm_inv_diff_norm imc1=cm_info_corr1 imc2=cm_info_corr2 "
        "inverse_variance=cm_inv_var joint_average=cm_joint_avg joint_energy=cm_energy joint_entropy=cm_joint_entr "
        "maximum_probability=cm_joint_max sum_average=cm_sum_avg sum_entropy=cm_sum_entr sum_squares=cm_joint_var",
        "_3D_avg",
    ),
    "glrlm": (
        "gray_level_non_uniformity=rlm_glnu gray_level_non_uniformity_normalized=rlm_glnu_norm "
        "gray_level_variance=rlm_gl_var high_gray_level_run_emphasis=rlm_hgre long_run_emphasis=rlm_lre "
        "long_run_high_gray_level_emphasis=rlm_lrhge long_run_low_gray_level_emphasis=rlm_lrlge "
        "low_gray_level_run_emphasis=rlm_lgre run_entropy=rlm_rl_entr run_length_non_uniformity=rlm_rlnu "
        "run_length_non_uniformity_normalized=rlm_rlnu_norm run_percentage=rlm_r_perc run_variance=rlm_rl_var "
        "short_run_emphasis=rlm_sre short_run_high_gray_level_emphasis=rlm_srhge "
        "short_run_low_gray_level_emphasis=rlm_srlge",
        "_3D_avg",
    ),
    "glszm": (
        "gray_level_non_uniformity=szm_glnu gray_level_non_uniformity_normalized=szm_glnu_norm "
        "gray_level_variance=szm_gl_var high_gray_level_zone_emphasis=szm_hgze large_area_emphasis=szm_lze "
        "large_area_high_gray_level_emphasis=szm_lzhge large_area_low_gray_level_emphasis=szm_lzlge "
        "low_gray_level_zone_emphasis=szm_lgze size_zone_non_uniformity=szm_zsnu "
        "size_zone_non_uniformity_normalized=szm_zsnu_norm small_area_emphasis=szm_sze "
        "small_area_high_gray_level_emphasis=szm_szhge small_area_low_gray_level_emphasis=szm_szlge "
        "zone_entropy=szm_zs_entr zone_percentage=szm_z_perc zone_variance=szm_zs_var",
        "_3D",
    ),
    "gldm": (
        "dependence_entropy=ngl_dc_entr dependence_non_uniformity=ngl_dcnu "
        "dependence_non_uniformity_normalized=ngl_dcnu_norm dependence_variance=ngl_dc_var "
        "gray_level_non_uniformity=ngl_glnu gray_level_variance=ngl_gl_var high_gray_level_emphasis=ngl_hgce "
        "large_dependence_emphasis=ngl_hde large_dependence_high_gray_level_emphasis=ngl_hdhge "
        "large_dependence_low_gray_level_emphasis=ngl_hdlge low_gray_level_emphasis=ngl_lgce "
        "small_dependence_emphasis=ngl_lde small_dependence_high_gray_level_emphasis=ngl_ldhge "
        "small_dependence_low_gray_level_emphasis=ngl_ldlge",
        "_3D",
    ),
    "ngtdm": (
        "busyness=ngt_busyness coarseness=ngt_coarseness complexity=ngt_complexity contrast=ngt_contrast "
        "strength=ngt_strength",
        "_3D",
    ),
}


def compare(folder: Path, engine: str = "fastrad") -> pd.DataFrame:
    """Every value of ours with its reference.

    Parameters
    ----------
    folder : Path
        With ``phantom.nii.gz``, ``mask.nii.gz`` and ``ibsi_1_dig_phantom.csv``.
    engine : str, default="fastrad"

    Returns
    -------
    pandas.DataFrame
        Indexed by our name: ``class``, ``tag`` (empty if IBSI has no such feature), ``value``, ``reference``,
        ``tolerance`` and ``result``: ``"passed"``, ``"failed"`` or ``"not in IBSI"``.
    """
    references = pd.read_csv(folder / "ibsi_1_dig_phantom.csv", sep=";").set_index("tag")
    phantom = read_scan(folder / "phantom.nii.gz", unit="SUV")
    X = pd.DataFrame({"pet_image": [phantom], "pet_mask": [read_scan(folder / "mask.nii.gz", unit="label")]})
    extractor = RadiomicsExtractor(image_column="pet_image", unit="", engine=engine, bin_width=1.0)
    values = extractor.set_output(transform="pandas").fit_transform(X).iloc[0]
    rows = {}
    for name, value in values.items():
        family, _, feature = str(name).removeprefix("radiomics_").partition("_")
        tags, suffix = TAGS[family]
        tag = dict(pair.split("=") for pair in tags.split()).get(feature)
        rows[f"{family}_{feature}"] = (family, "" if tag is None else tag + suffix, value)
    for peak, tag in (("suvmax", "loc_peak_loc"), ("highest", "loc_peak_glob")):
        found = PETFeatures(peak=peak, fractional_edges=False).fit_transform(X)[0]
        rows[f"suvpeak ({peak})"] = ("peak", tag, found[2])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["class", "tag", "value"])
    known = references.reindex(table["tag"])
    table["reference"] = known["reference value"].to_numpy(dtype=float)
    # References have three digits; a tolerance of 0 asks for all of them.
    size = np.abs(table["reference"])
    digits = 0.5 * 10.0 ** (np.floor(np.log10(size.where(size > 0, 1.0))) - 2)
    table["tolerance"] = np.maximum(known["tolerance"].to_numpy(dtype=float), digits)
    close = np.abs(table["value"] - table["reference"]) <= table["tolerance"] * (1 + 1e-9)
    table["result"] = np.where(table["reference"].isna(), "not in IBSI", np.where(close, "passed", "failed"))
    return table


def not_offered(folder: Path, table: pd.DataFrame) -> pd.Series:
    """How many features of IBSI in three dimensions are not offered, by the first word of their tags."""
    references = pd.read_csv(folder / "ibsi_1_dig_phantom.csv", sep=";").dropna(subset=["reference value"])
    tags = references["tag"]
    left = tags[~tags.str.contains("_2D|_2_5D") & ~tags.isin(table["tag"])]
    return left.str.partition("_")[0].value_counts()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="fastrad", choices=["fastrad", "pyradiomics"])
    folder = Path(os.environ["MMDLS_DATA"]) / "ibsi_digital_phantom"
    table = compare(folder, parser.parse_args().engine)
    counts = table.groupby(["class", "result"], sort=False).size().unstack(fill_value=0)
    print(counts.to_string(), "\n")
    print(table[table["result"] == "failed"].to_string(), "\n")
    print("not in IBSI:", ", ".join(table.index[table["result"] == "not in IBSI"]), "\n")
    print("of IBSI, not offered:", not_offered(folder, table).to_dict())


if __name__ == "__main__":
    main()
