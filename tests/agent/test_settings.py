"""The agent's environment."""

from pathlib import Path

import pytest

from agent.settings import NAMES, WrongSettings, read_settings, unknown_names


def test_without_any_variable_the_defaults_of_the_contract_hold() -> None:
    settings = read_settings({})
    assert (settings.host, settings.port, settings.interval_s) == ("0.0.0.0", 8000, 1.0)
    assert settings.comfyui_url == "http://127.0.0.1:8188"
    assert (settings.lease_s, settings.boot_grace_s) == (1200.0, 2700.0)
    assert settings.token is None
    assert settings.pod is None
    assert settings.max_part_bytes == 90_000_000


def test_values_are_typed_and_blank_ones_are_none_given() -> None:
    settings = read_settings(
        {
            "AGENT_PORT": "9000",
            "AGENT_HOST": " ",
            "AUTH_TOKEN": "",
            "COMFYUI_URL": "http://127.0.0.1:8189/",
            "AGENT_COMFYUI_DIR": "/comfy",
            "AGENT_INPUT_DIR": "/elsewhere",
            "AGENT_MODEL_SYNC_STATUS": "/run/sync.json",
            "RUNPOD_POD_ID": "abc123",
            "RUNPOD_API_KEY": "key",
        }
    )
    assert (settings.host, settings.port, settings.token) == ("0.0.0.0", 9000, None)
    assert settings.comfyui_url == "http://127.0.0.1:8189"
    assert (settings.output_dir, settings.input_dir) == (Path("/comfy/output"), Path("/elsewhere"))
    assert settings.log_file == Path("/comfy/user/comfyui.log")
    assert settings.pod is not None
    assert (settings.pod.id, settings.pod.api_base) == ("abc123", "https://api.runpod.io")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_PORT", "http"),
        ("AGENT_PORT", "70000"),
        ("AGENT_INTERVAL_S", "0"),
        ("AGENT_INTERVAL_S", "nan"),
        ("AGENT_LEASE_S", "-1"),
        ("AGENT_BOOT_GRACE_S", "inf"),
        ("AGENT_HARD_MAX_S", "60"),
        ("AGENT_COMFYUI_DIR", "relative"),
        ("COMFYUI_URL", "localhost:8188"),
        ("COMFYUI_URL", "http://[::1"),
        ("COMFYUI_URL", "http://x/?y"),
        ("RUNPOD_POD_ID", 'x"}){id}}'),
        ("RUNPOD_API_BASE", "ftp://x"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_itself(name: str, value: str) -> None:
    with pytest.raises(WrongSettings) as caught:
        read_settings({name: value, **({} if name.startswith("RUNPOD_POD") else {"RUNPOD_POD_ID": "x"})})
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(f"{name}={value!r}: ")


def test_all_faults_are_told_together_and_no_secret() -> None:
    with pytest.raises(WrongSettings) as caught:
        read_settings({"AGENT_PORT": "x", "AUTH_TOKEN": "my secret", "AGENT_LEASE_S": "y"})
    assert len(caught.value.faults) == 3
    assert "my secret" not in str(caught.value)


def test_neither_token_nor_key_is_shown_by_repr() -> None:
    shown = repr(read_settings({"AUTH_TOKEN": "hush", "RUNPOD_POD_ID": "p", "RUNPOD_API_KEY": "psst"}))
    assert "hush" not in shown
    assert "psst" not in shown


def test_a_misspelt_name_is_noticed() -> None:
    assert list(unknown_names({"AGENT_LEASE": "1", "AGENT_PORT": "1", "HOME": "/"})) == ["AGENT_LEASE"]


def test_every_setting_is_in_the_guide() -> None:

    guide = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    assert [name for name in sorted(NAMES) if f"`{name}`" not in guide] == []
