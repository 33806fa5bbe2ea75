"""The page of the demo: choose or drop a video, type a sentence, and see the answer's page below (gradio)."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from pps_fast.demo.library import Library
from pps_fast.ground.page_cards import note

ALL = "all videos"
# fonts of the system: gradio's own would be fetched from a network
_FONT = ("system-ui", "sans-serif")
_STYLE = """
#answer iframe { width: 100%; height: 85vh; min-height: 30rem; border: 0; border-radius: 8px; }
#answer .note { font-size: 1.1rem; padding: 0.5rem 0; }
"""


def import_gradio() -> Any:
    """Returns the library, which is loaded when a demo begins and not before.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            "the demo needs the library gradio; install it with `pip install -c constraints-demo.txt -e '.[demo]'`"
        ) from error
    return gradio


def build(library: Library, what: str) -> Any:
    """Returns the demo as gradio's Blocks.

    Args:
        library: the videos and the model.
        what: the model, in a few words.
    """
    gradio = import_gradio()
    choices = [ALL, *library.names] if len(library.names) > 1 else library.names
    # telemetry and the check for a newer version are on unless they are turned off
    with gradio.Blocks(analytics_enabled=False, title="When does it happen?", delete_cache=(3600, 86400)) as app:
        gradio.Markdown(f"# When does it happen?\n{_as_text(what)}")
        with gradio.Row(equal_height=True):
            video = gradio.Dropdown(choices, value=choices[0] if choices else None, label="Video", scale=2)
            dropped = gradio.File(label="or drop a video of your own", file_types=["video"], height=130, scale=2)
        with gradio.Row(equal_height=True):
            sentence = gradio.Textbox(
                elem_id="sentence",
                label="Sentence",
                placeholder="person opens the door",
                lines=1,
                max_lines=1,
                autofocus=True,
                scale=5,
            )
            ask = gradio.Button("Find it", variant="primary", scale=1)
        answer = gradio.HTML(elem_id="answer")

        def take(path: str | None) -> Any:
            if path is None:
                return gradio.skip()
            name = library.add(Path(path))
            return gradio.Dropdown(choices=list(dict.fromkeys([*choices, name])), value=name)

        dropped.change(take, dropped, video, show_progress="hidden", api_visibility="private")
        asked = {"fn": lambda *values: answer_of(library, *values), "inputs": [video, sentence], "outputs": answer}
        gradio.on([ask.click, sentence.submit], **asked, api_name="ask", concurrency_limit=1)
    return app


def answer_of(library: Library, name: str | None, sentence: str | None) -> str:
    """Returns the answer's page in a frame, or a sentence that says why there is none."""
    try:
        if name is None:
            raise ValueError("no video; choose one, or drop a file")
        if name != ALL and not library.has(name):
            raise ValueError(f"video {name}: not one of those that are offered; choose one, or drop a file")
        page, failures = library.page(sentence or "", library.names if name == ALL else [name])
    except ValueError as error:
        return _told(str(error))
    left_out = "".join(_told(f"not searched: {failure}") for failure in failures)
    return f'{left_out}<iframe title="answers" srcdoc="{escape(page)}"></iframe>'


def _told(text: str) -> str:
    return note(f"{text[:1].upper()}{text[1:]}.")


def launch(app: Any, *, host: str, port: int | None, folders: list[Path]) -> str:
    """Serves a demo in a thread of its own, and returns its address.

    Args:
        host: to listen at; the loopback address is reached from this machine alone.
        port: None for the first free one from 7860.
        folders: may be read by whoever reaches the address.
    Raises:
        ValueError: where nothing can listen there, as where the port is taken.
    """
    gradio = import_gradio()
    try:
        _, address, _ = app.launch(
            server_name=host,
            server_port=port,
            allowed_paths=[str(folder.absolute()) for folder in folders],
            share=False,
            mcp_server=False,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=gradio.themes.Default(primary_hue="blue", font=_FONT, font_mono=("ui-monospace", "monospace")),
            css=_STYLE,
        )
    except OSError as error:
        # the library's own words speak of its environment variables
        what = "7860 to 7959" if port is None else str(port)
        raise ValueError(f"--port {what}: cannot be listened at on {host}; name another port or --host") from error
    return str(address)


def _as_text(words: str) -> str:
    """Returns text as Markdown that means just that."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()<>#+-.!|$&~" else sign for sign in words)
