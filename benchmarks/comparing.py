"""`compare` of five recipes on a map of DeepSeek-V3's size, beside bare Python.

Needs nothing. Prints a Markdown table: whole processes, medians of five, interleaved.
"""

from __future__ import annotations

from timing import LORASCOPE, print_processes

MODEL = "deepseek_v3"
RECIPES = ("qv", "qv+ffn", "attention", "ffn", "all")


def main() -> None:
    print_processes(
        {
            f"lorascope compare {MODEL} (five recipes)": (*LORASCOPE, "compare", MODEL, *RECIPES),
            f"lorascope plan {MODEL} all": (*LORASCOPE, "plan", MODEL, "all"),
            f"lorascope inspect {MODEL}": (*LORASCOPE, "inspect", MODEL),
        }
    )


if __name__ == "__main__":
    main()
