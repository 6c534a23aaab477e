"""Which host is sent which token, and nothing else ever."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from model_sync.errors import BadSetting

# The hosts that ask for a token. Their delivery networks (cdn-lfs…, *.r2.cloudflarestorage.com) are not among them:
# they take a signature in the address, and some refuse a request that carries both.
HOSTS = {
    "HF_TOKEN": frozenset({"huggingface.co", "www.huggingface.co", "hf.co"}),
    "CIVITAI_TOKEN": frozenset({"civitai.com", "www.civitai.com"}),
}


@dataclass(frozen=True)
class Tokens:
    """By the name of the variable: HF_TOKEN, CIVITAI_TOKEN."""

    by_name: Mapping[str, str] = field(default_factory=dict, repr=False)

    def name_for(self, url: URL) -> str | None:
        """The variable that could hold a token for this host, whether it does or not."""
        return next((name for name, hosts in HOSTS.items() if (url.host or "").lower() in hosts), None)

    def headers_for(self, url: URL) -> dict[str, str]:
        """The Authorization header that `url` may see, or nothing. Asked anew for every redirect.

        As a header for Civitai too, which also takes `?token=`: an address ends in logs and in redirects.
        """
        name = self.name_for(url)
        if url.scheme != "https" or name is None or name not in self.by_name:
            return {}
        return {"Authorization": f"Bearer {self.by_name[name]}"}

    def redacted(self, text: str) -> str:
        for token in self.by_name.values():
            text = text.replace(token, "***")
        return text


def from_environment(environment: Mapping[str, str]) -> Tokens:
    """HF_TOKEN and CIVITAI_TOKEN, or the files that HF_TOKEN_FILE and CIVITAI_TOKEN_FILE name. Raises BadSetting."""
    found = {}
    for name in HOSTS:
        text = environment.get(name, "").strip()
        if not text and (file := environment.get(f"{name}_FILE", "")):
            try:
                text = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise BadSetting(f"{name}_FILE={file}: {type(error).__name__}") from error
        if text:
            if not text.isascii() or not text.isprintable() or " " in text:
                raise BadSetting(f"{name} contains characters that no token has")
            found[name] = text
    return Tokens(found)
