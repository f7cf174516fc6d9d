"""The `streamingvlm` command: what can be typed, and how it ends. What the commands do is in `run_command`, `watch_command`, `doctor` and so on.

    streamingvlm --help
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from streamingvlm.base.errors import UserError

ABOUT = "A vision-language model that watches a video and says what happens, second by second, in constant time and memory."
EXAMPLES = """\
examples:
  streamingvlm doctor                                        is everything here that is needed?
  streamingvlm run match.mp4 --out said.vtt                  captions of a file
  streamingvlm watch match.mp4 --browser                     the same in real time, in a window of the browser
  streamingvlm serve --demo                                  eight made-up cameras, live, on a page; nothing else needed
  streamingvlm benchmark --list                              public benchmarks, streamed: with your copy of their data

next, in a clone of the workbench:
  make repro     trains the tiny model that these commands use, and everything else there is to see
  make lab       the same as lessons, in JupyterLab
  README.md      what this is about, and how to use the 7B model
"""
RUN = "Watch VIDEO; print what is said and write it to a WebVTT and a JSONL file."
WATCH = """Watch VIDEO at the speed at which it was filmed: each second is seen when it has passed. Shows the picture, what is said, latency (from the
last frame's arrival to the text), lateness and cache size. Ctrl-C ends it; what was said is then in a WebVTT and a JSONL file."""
SERVE = """Watch many live cameras: boxes, actions, alarms and a sentence a second, each within a budget, on a page and over WebSocket and gRPC.
CAMERAS is a YAML file; two lines are enough:

  cameras:
    - {name: gate, url: "rtsp://user:password@192.0.2.7/stream"}

Addresses: rtsp://, rtsps://, http(s)://….m3u8 (HLS), webrtc: (a browser or a WHIP client pushes), push: (gRPC), file:clip.mp4?loop=1,
pattern:640x360@30, city:1/8 (made up). More keys of a camera: delay_s, fps, priority, mode (auto, every_frame, freshest), budget_ms, comment,
inference_px (720: larger pictures are brought to it), transport (tcp or udp, of RTSP), privacy: {hide: people | faces | everything |
nothing}, keep: {records_s, events_s, pictures_s}. A section `camera:` sets what cameras share that do not say it themselves, also those that are
added while it runs. A section `service:` may set port, host, grpc_port, budget_ms, io_workers, max_cameras, utilisation, store, keep_s, model,
commentator, commentary, title, access, batch, precision, learned."""
DATA = """What a service keeps: `card` prints what CAMERAS (the YAML file) says is seen, hidden and kept; `export` writes the records and pictures of
a camera or a time into a folder OUT; `delete` deletes them for good. The last two take --store, as `service.store` names it. What a running service
has in memory it forgets by `DELETE /api/records`, which deletes the same."""
TOKEN = """Who may come in to a service whose cameras.yaml has a section `access:`. A token is shown once, when it is made; its hash is kept in FILE,
which the running service reads again each second. Programs send it as `Authorization: Bearer TOKEN`, a browser asks for it as a password.
Roles: read (look at everything of its cameras), operate (also add and remove cameras and push to them), administer (also delete and audit)."""
LEARN = """Watch the cameras of CAMERAS for a while and learn what is usual there, from a pretrained ViT's embedding a second (`make real-eyes`
fetches it), without labels: `serve --eyes coco --learned FOLDER` then scores how unusual each second is. Keeps no picture. Files are read once."""
BENCHMARK = """Stream a public benchmark's videos through a model, ask each question at its time, and score the answers twice: by the benchmark's own
rule and strictly; beside it what the last four frames alone answer. Data is yours to download. A run that was ended goes on where it was."""
DOCTOR = "Look at Python, packages, GPU, decoders, data, model and room. Exits with 1 if there is a problem, else with 0."
SCORE = """Score boxes against a ground truth in MOTChallenge's format: those of the COCO detector that `make real-eyes` fetches, or of a service's
decisions. Prints average precision, and recall and precision at a threshold, for each class that the truth has."""
COMMANDS = {  # name -> where it is, what it does in a line
    "doctor": ("doctor", "look whether all that is needed is here, and say what to do"),
    "run": ("run_command", "comment on a video file, as fast as it goes"),
    "watch": ("watch_command", "the same in real time, in the terminal or in the browser"),
    "serve": ("serve_command", "watch many live cameras and show them on a page"),
    "data": ("service.keeping_command", "print what a service keeps of whom, hand it over, delete it"),
    "token": ("service.keeping_command", "make, list and revoke tokens for a service that others can reach"),
    "score": ("footage.score_command", "score boxes on your own footage against your own ground truth"),
    "learn": ("footage.learn_command", "learn what is usual on your own cameras, to be told what is not"),
    "benchmark": ("benchmark_command", "stream a public benchmark through a model and score its answers"),
}


class Parser(argparse.ArgumentParser):
    """Answers what it does not understand with one sentence, and with the nearest thing that it does."""

    known: tuple[str, ...] = ()  # for the main parser: every option of its commands
    policy: argparse.Action | None = None  # the option of that name

    def format_help(self) -> str:
        """Only help lists the policies: what else is typed, `doctor` above all, must not need the packages they need."""
        if self.policy:
            from streamingvlm.context import policy

            self.policy.help = f"what the cache keeps: {', '.join(policy.POLICIES)} (default: streaming)"
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
            raise UserError(f"There is no command `{found[1]}`{_nearest(found[1], COMMANDS)}: there are {', '.join(COMMANDS)}.")
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            raise UserError(f"`{found[1]}` means nothing here{_nearest(found[1], self.known)}: `streamingvlm COMMAND --help` lists what does.")
        raise UserError(f"{message[:1].upper()}{message[1:]}; `{self.prog} --help` says how it is meant.")


def _nearest(word: str, known) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" (did you mean `{near[0]}`?)" if near else ""


def parser() -> Parser:
    main = Parser(prog="streamingvlm", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    commands = main.add_subparsers(dest="command", metavar="COMMAND", title="commands (`streamingvlm COMMAND --help` says more)")
    common = _common()
    run = commands.add_parser("run", help=COMMANDS["run"][1], parents=[common], allow_abbrev=False, description=RUN,
                              epilog="example: streamingvlm run match.mp4 --previous \"left lions right bears\" --out said.vtt")
    watch = commands.add_parser("watch", help=COMMANDS["watch"][1], parents=[common], allow_abbrev=False, description=WATCH,
                                epilog="example: streamingvlm watch match.mp4 --browser")
    watch.add_argument("--speed", type=float, metavar="N", default=1.0, help="let the clock run N times as fast (default: 1)")
    watch.add_argument("--browser", action="store_true", help="show it in a window of the browser, served from this machine to itself")
    watch.add_argument("--port", type=int, metavar="N", default=0, help="with --browser: the port (default: any that is free)")
    watch.add_argument("--no-open", action="store_true", help="with --browser: print the address, open nothing")
    serve = commands.add_parser("serve", help=COMMANDS["serve"][1], allow_abbrev=False, description=SERVE,
                                formatter_class=argparse.RawDescriptionHelpFormatter, epilog="example: streamingvlm serve cameras.yaml --port 8080")
    serve.add_argument("file", type=Path, nargs="?", metavar="CAMERAS", help="a YAML file")
    serve.add_argument("--demo", action="store_true", help="a made-up city, filmed live by eight cameras over RTSP on this machine")
    serve.add_argument("--eyes", choices=("coco",), help="look for COCO's 80 things with the pretrained detector that `make real-eyes` fetches")
    serve.add_argument("--learned", type=Path, metavar="FOLDER", help="with --eyes: what `streamingvlm learn` wrote, to be told what is unusual")
    serve.add_argument("--cameras", type=int, metavar="N", default=8, help="with --demo: how many cameras, 2 to 32 (default: 8)")
    serve.add_argument("--profile", metavar="NAME", help="edge, workstation or cloud (configs/profiles), or a file: what CAMERAS does not say itself")
    serve.add_argument("--engine", choices=("processes", "ray"), default="processes",
                       help="where the model runs: one process here (the default), or replicas on Ray Serve, as many as the streams need (an extra)")
    serve.add_argument("--host", metavar="NAME", help="where to listen (default: 127.0.0.1, this machine alone)")
    serve.add_argument("--port", type=int, metavar="N", help="of the page; 0: any that is free (default: 8090)")
    serve.add_argument("--seconds", type=float, metavar="N", help="end after so long (default: when told to)")
    serve.add_argument("--record", type=Path, metavar="FILE", help="write down what happens, to be decided again (`serving.schedule.replay`)")
    serve.add_argument("--no-open", action="store_true", help="print the page's address, open nothing")
    _token(commands)
    _data(commands)
    _score(commands)
    _learn(commands)
    _benchmark(commands)
    doctor = commands.add_parser("doctor", help=COMMANDS["doctor"][1], allow_abbrev=False, description=DOCTOR,
                                 epilog="example: streamingvlm doctor --json")
    doctor.add_argument("--json", action="store_true", help="for programs: {ok, checks: [{name, state, text}]}")
    run.policy = watch.policy = common.policy
    main.known = tuple(option for one in (main, *commands.choices.values()) for option in one._option_string_actions)
    return main


def _score(commands) -> Parser:
    from streamingvlm.cli.footage import score_command

    one = commands.add_parser("score", help=COMMANDS["score"][1], allow_abbrev=False, description=SCORE,
                              epilog="example: streamingvlm score --truth gt.txt --video film.avi --tiles 3x2 --every 4")
    score_command.options(one)
    return one


def _learn(commands) -> None:
    from streamingvlm.cli.footage import learn_command

    learn_command.options(commands.add_parser("learn", help=COMMANDS["learn"][1], allow_abbrev=False, description=LEARN,
                                              epilog="example: streamingvlm learn cameras.yaml --minutes 30"))


def _benchmark(commands) -> Parser:
    one = commands.add_parser("benchmark", help=COMMANDS["benchmark"][1], allow_abbrev=False, description=BENCHMARK,
                              epilog="example: streamingvlm benchmark ovo --data ~/OVO-Bench --model Qwen/Qwen2.5-VL-7B-Instruct --limit 50")
    one.add_argument("name", nargs="?", metavar="NAME", help="which one; --list shows them")
    one.add_argument("--list", action="store_true", help="what there is, which files each wants, and its own rule")
    one.add_argument("--data", type=Path, metavar="FOLDER", help="where the benchmark was downloaded to")
    one.add_argument("--model", metavar="NAME", help="a model folder or a name on the hub (default: what `make repro` trained in this clone)")
    one.policy = one.add_argument("--policy", metavar="NAME", default="streaming", help="what the cache keeps")
    one.add_argument("--fps", type=float, metavar="N", help="frames a second that are looked at (default: as in params.yaml)")
    one.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    one.add_argument("--template", type=Path, metavar="FILE", help="the benchmark's own prompt: a text with {question} and {options}, or the Python "
                     "file of its repository (default: our words)")
    one.add_argument("--out", type=Path, metavar="FILE", help="the answers; the scores stand beside it (default: benchmark.NAME.jsonl, here)")
    one.add_argument("--no-baseline", action="store_true", help="leave out the last four frames alone")
    one.add_argument("--letters", action="store_true", help="where there are options the likeliest letter is the answer, as in the paper's own "
                     "scripts: none is empty or unread (default: what the model says)")
    one.add_argument("--silent", action="store_true", help="watch without a word between the questions, for a model that never learned to stream")
    one.add_argument("--against", type=Path, metavar="FILE", help="of commentary: judge it against another run's answers, or published predictions")
    one.add_argument("--judge", metavar="MODEL", help="with --against: an LLM behind OPENAI_BASE_URL (default: the likeness to the human's words)")
    one.add_argument("--rescore", type=Path, metavar="FILE", help="score predictions that the benchmark's repository ships, without any model")
    one.add_argument("--device", metavar="NAME", help="auto, cpu or cuda (default: as in params.yaml)")
    one.add_argument("--params", type=Path, metavar="FILE", help="settings (default: params.yaml in this clone)")
    return one


def _token(commands) -> None:
    token = commands.add_parser("token", help=COMMANDS["token"][1], allow_abbrev=False, description=TOKEN,
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="example: streamingvlm token add gatekeeper --role read --cameras gate,yard --until 2027-01-01")
    token.add_argument("verb", choices=("add", "list", "revoke", "log"), metavar="add | list | revoke | log", help="log: the audit log, newest first")
    token.add_argument("name", nargs="?", metavar="NAME", help="whose token it is")
    token.add_argument("--role", metavar="NAME", default="read", help="read, operate or administer (default: read)")
    token.add_argument("--cameras", metavar="A,B", help="of these cameras alone (default: all)")
    token.add_argument("--until", metavar="DATE", help="the day at whose beginning (UTC) it ends, as 2027-01-01 (default: when it is revoked)")
    token.add_argument("--file", metavar="FILE", default="access.sqlite", help="as `access.tokens` names it (default: access.sqlite)")


def _data(commands) -> None:
    data = commands.add_parser("data", help=COMMANDS["data"][1], allow_abbrev=False, description=DATA,
                               formatter_class=argparse.RawDescriptionHelpFormatter,
                               epilog="example: streamingvlm data export out --store records.sqlite --camera gate --from 2026-11-01 --to 2026-12-01")
    data.add_argument("verb", choices=("card", "export", "delete"), metavar="card | export | delete")
    data.add_argument("file", type=Path, nargs="?", metavar="CAMERAS | OUT", help="card: a YAML file; export: a folder that is not there yet")
    data.add_argument("--store", metavar="FILE", help="a file or a database's address")
    data.add_argument("--camera", metavar="NAME", action="append", help="of this camera; may be said again (default: all)")
    data.add_argument("--from", dest="start", metavar="DATE", help="from this day or time on, UTC")
    data.add_argument("--to", dest="end", metavar="DATE", help="before this day or time, UTC")


def _common() -> Parser:
    """What `run` and `watch` both take."""
    from streamingvlm.cli import asking
    from streamingvlm.cli.run_command import DEFAULT_MODEL

    common = Parser(add_help=False)
    common.add_argument("file", type=_video, metavar="VIDEO", help="any video file")
    common.add_argument("--model", metavar="NAME", help=f"a model folder or a name on the hub (default: {DEFAULT_MODEL} in this clone)")
    common.policy = common.add_argument("--policy", metavar="NAME", default="streaming", help="what the cache keeps")
    common.add_argument("--out", type=Path, metavar="FILE", help="the WebVTT file; the JSONL file stands beside it (default: VIDEO.said.vtt, here)")
    common.add_argument("--html", type=Path, metavar="FILE", help="also a page that plays the video with what was said")
    common.add_argument("--query", metavar="TEXT", help="what the commentator is asked to do (default: as in params.yaml)")
    common.add_argument("--previous", metavar="TEXT", default="", help="what was said before the video starts")
    asking.options(common)
    common.add_argument("--device", metavar="NAME", help="auto, cpu or cuda (default: as in params.yaml)")
    common.add_argument("--params", type=Path, metavar="FILE", help="settings (default: params.yaml in this clone)")
    return common


def _video(word: str) -> Path:
    """A file's name; UserError for an address."""
    address = re.match(r"([a-z][a-z0-9+.-]*)://", word, re.IGNORECASE)
    if address and not os.path.exists(word):
        if address[1].lower() == "file":
            raise UserError(f"{word} is an address: write the path alone, without {address[0]}.")
        raise UserError(f"{word} is an address, and this watches files: live cameras are for `streamingvlm serve`, and a film is downloaded first.")
    return Path(word)


def _named(words: list[str], options) -> list[str]:
    """The words, with ./ before a file whose name looks like an option and is none."""
    return [f"./{word}" if word.startswith("-") and word not in options and os.path.isfile(word) else word for word in words]


def main(argv: list[str] | None = None) -> int:
    """-> the exit status: 0, 2 for what the caller can mend, 130 after Ctrl-C, 141 where nobody reads on; `doctor` has its own 1."""
    try:
        known = parser()
        args = known.parse_args(_named(sys.argv[1:] if argv is None else argv, known.known))
        if args.command is None:
            known.print_help()
            return 2
        return getattr(import_module(f"streamingvlm.cli.{COMMANDS[args.command][0]}"), args.command)(args) or 0
    except UserError as error:
        print(f"streamingvlm: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"streamingvlm: A package cannot be imported ({error}): `streamingvlm doctor` says what is missing.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"streamingvlm: stopped; {str(stop) or 'nothing was said yet'}.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `streamingvlm run ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141

