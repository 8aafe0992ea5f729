r"""Whole completions and the verdict on them: which part of a text is the answer."""

# (gold, whole completion, verdict)
COMPLETIONS: list[tuple[str, str, bool | None]] = [
    ("8", "<think>maybe \\boxed{7}</think> So \\boxed{8}", True),
    ("2", "<think>x=\\boxed{1}, wait no.</think>\n\\boxed{2}", True),
    ("7", "<think>it must be \\boxed{7}", False),
    ("7", "so the answer is \\boxed{7", False),
    ("7", "first \\boxed{7}, then \\boxed{8", True),
    ("7", "\\boxed{\\boxed{7}}", True),
    ("7", "\\fbox{7}", True),
    ("7", "\\boxed {7}", True),
    ("1", "First \\boxed{1}, then \\boxed{2}.", False),
    ("7", "答案是\\boxed{7}。", True),
    ("7", "7 \\boxed{}", False),
    ("1,2", "so \\boxed{1} and \\boxed{2}", True),
    ("1,2", "so \\boxed{1,2}", True),
    ("1,2", "so \\boxed{2} and \\boxed{3}", False),
    ("2", "so \\boxed{1} and \\boxed{2}", True),
    ("\\boxed{5}", "\\boxed{5}", True),
    ("We get $x=\\boxed{5}$ at once.", "\\boxed{5}", True),
    ("s=\\boxed{1.6} \\mathrm{~cm}", "\\boxed{1.6\\text{ cm}}", True),
    ("", "\\boxed{5}", None),
]
