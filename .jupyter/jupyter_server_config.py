"""JupyterLab for `make lab`: notebooks/ is saved without outputs, so opening, running and saving one makes no stage stale."""

from pathlib import Path

from streamingvlm.notebook import canonical


def save_the_source(model, path, contents_manager):
    # Only lessons: an executed notebook in reports/ or one of your own elsewhere keeps what it shows.
    if model["type"] == "notebook" and path.lstrip("/").startswith("notebooks/") and model.get("content"):
        model["content"] = canonical(model["content"])


c = get_config()  # noqa: F821 - given by Jupyter
c.ContentsManager.pre_save_hook = save_the_source
c.ServerApp.root_dir = str(Path(__file__).parents[1])
c.ServerApp.kernel_spec_manager_class = "streamingvlm.notebook.ThisPython"
c.LabApp.default_url = "/lab/tree/notebooks/00_tour.ipynb"
c.LabApp.news_url = None  # no network unless asked for
c.LabApp.app_settings_dir = str(Path(__file__).parent / "lab")  # overrides.json: nor a question whether to
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
