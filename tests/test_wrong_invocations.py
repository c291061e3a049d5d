"""What people type wrongly: each ends with exit code 1 and what to do, never with a traceback."""

import os
import shlex
import shutil
from pathlib import Path

import pytest

LONG = "n" * 300
WRONG = {
    "train.py": """
        epochs=3 | Did you mean trainer.max_epochs=3
        --epochs 3 | Did you mean trainer.max_epochs=3?
        -epochs=3 | Did you mean trainer.max_epochs=3?
        --multi | there is no such flag
        -x | there is no such flag
        modle=mnist | Did you mean model=mnist?
        model | Did you mean model=…?
        model= | no such option
        =3 | expected key=value
        model==mnist | model==mnist: cannot be read
        model=mnist, | cannot be read
        model=mnist,enhanced | several values are a sweep: add -m
        model=[mnist,enhanced] | takes one option
        model=Mnist | Did you mean mnist?
        model=../model/mnist | no such option
        model=null | no such option
        model=3 | no such option
        model@x=mnist | model@x
        ~model | a run needs it
        ~seed | a run needs it
        ~data | a run needs it
        ~callbacks | a run needs it
        ~trainer.max_epochs | a run needs it
        ~model.dropout | a run needs it
        ~nothing | no such key
        resume= | expected a path
        resume=nowhere | does not exist
        resume=file.txt | it is a file
        resume=empty | has no config.yaml and no provenance.json
        resume=damaged | config.yaml is damaged
        resume=binary | config.yaml is damaged
        resume=interpolated | not the resolved configuration
        resume=evil | loss._target_=os.system
        resume=run seed=3 | leave this out
        resume=run/checkpoints/none.ckpt | no checkpoint
        resume=run trainer.max_epochs=0 | expected int in [1, inf)
        trainer.max_time=00:00:00:00 | expected days, hours, minutes and seconds
        trainer.limit_train_batches=0 | expected a number of batches
        trainer.profiler=pytorch | expected simple | advanced
        metrics=[] | metrics=[] has no acc
        data.flip_mode=altrnate | Did you mean alternating?
        logger.tensorboard.name=../../x | must lie in the run folder
        -m resume=run | leave -m out
        name= | a folder's name
        name=../up | a folder's name
        name=/abs | a folder's name
        name=. | a folder's name
        name=LONG | at most 200 bytes
        -m name=x seed=0,1 | sweep.name= names a sweep
        -m sweep.name=. seed=0,1 | a folder's name
        -m sweep.name=a/b seed=0,1 | a folder's name
        sweep.name=x | add -m
        output_dir= | expected a path
        seed= | expected int
        seed=one | expected int
        seed=1e3 | expected int
        seed=-1 | expected int in [0
        data.fold=5 | with data.folds=5 there are 0 to 4
        seed=[1] | expected int
        seed={a:1} | seed is missing
        seed=0,1 | add -m
        'seed=${foo}' | foo
        'ünï=3' | cannot be read
        'a b=3' | cannot be read
        optimizer.betas=[0.9] | expected [float, float]
        optimizer.betas=0.9 | expected [float, float]
        optimizer.lr=nan | expected float in (0, inf)
        optimizer.lr=1e-3x | expected float in (0, inf)
        optimizer.momentum=0.9 | no such key. optimizer has
        optimizer={lr:0.1,momentum:0.9} | no such key
        loss._target_=torch.optim.SGD | it is no Module
        callbacks.early_stopping=true | callbacks=early_stopping switches it on
        callbacks.early_stopping.patience=3 | needs a _target_
        +callbacks.foo.patience=3 | callbacks.foo needs a _target_
        +callbacks.foo=bar | expected null or keys
        +callbacks.foo._target_=torch.nn.ReLU | it is no Callback
        '+callbacks.foo={_target_:lightning.pytorch.callbacks.Timer,durration:1}' | Did you mean
        metrics=acc,ece | add -m
        metrics=[acc,ecc] | Did you mean acc or ece?
        callbacks.checkpoint.monitor=val_ece | metrics=[acc] has no ece
        trainer.strategy=fsdp | auto | ddp
        trainer.devices=[0] | expected int
        trainer.devices=-5 | expected int
        trainer.devices=auto | expected int
        trainer.devices=99 trainer.accelerator=cpu | a process for each
        trainer.num_nodes=50 | nothing starts the processes of the other nodes
        -m trainer=ddp seed=0,1 | a sweep gives each job one device
        +callbacks.average={_target_:lightning.pytorch.callbacks.EMAWeightAveraging,foo:3} | no such key
        data.root= | expected a path
        data.dataset=mnits | Did you mean mnist?
        data.dataset=os.system | data.dataset=os.system
        data._target_=lightning_modules.data.sources.cifar10 | of functions only
        hydra.foo=1 | hydra.foo
        hydra.mode=FOO | expected one of [RUN, MULTIRUN]
        hydra/sweeper=halving | is about a sweep: add -m
        hydra/launcher=joblib | is about a sweep: add -m
        name=1 | quoted twice
        optimizer=muno | Did you mean muon?
        optimizer=muon optimizer.momentm=0.9 | Did you mean optimizer.momentum=0.9?
        optimizer=adam optimizer.learning=1 | optimizer.lr
        data.mix=mixupp | Did you mean mixup?
        data.folds=1 data.fold=0 | expected int in [2, inf)
        data.batch_size=0 | expected int in [1, inf)
        data.val_fraction=1 | expected float in [0, 1)
        trainer.precision=bf16 | bf16-mixed
        trainer.compile=true model.engine=numpy | torch compiles its own layers only
        trainer.accelerator=cpu trainer.precision=16-mixed | needs a GPU
        trainer.accelerator=cpu trainer.sync_batchnorm=true | needs GPUs
        -m trainer.accelerator=cpu trainer.precision=32-true,16-mixed | needs a GPU
        callbacks=lr_finder callbacks.lr_finder.lowest=2 | must lie below highest=1.0
        callbacks=lr_finder trainer=ddp | looks on one device only
        loss=focal data.mix=mixup | needs a loss of probabilities
        optimizer=sam trainer.precision=16-mixed | does not work in float16
        logger=csv logger.csv.name= | its metrics.csv would replace
        data=cifar10 data.root=null | set data.root=PATH
        data=image_folder data.channels=2 | expected 1 | 3 | 4
        +loss.reduction=none | expected mean | sum
        trainer.accelerator=tpu | Did you mean cpu or gpu?
        trainer.max_epochs=1e9 | expected int
        trainer.gradient_clip_val=-1 | expected float in (0, inf)
        callbacks=ema callbacks.ema.decay=2 | expected float in [0, 1)
        scheduler=cosine scheduler.warmup=1.5 | expected float in [0, 1)
        model.widths=[] | expected list[int] in [1, inf)
        model.activation=rellu | Did you mean relu?
        logger=wandbb | Did you mean wandb?
        output_dir=/dev/null | /dev/null cannot be made
        hydra.searchpath=[nowhere] | nowhere
        -m hydra/launcher=slurm seed=0,1 | no such option
        -m -r seed=0 | one of --run, --multirun
        --info foo | invalid choice
        --experimental-rerun x | resume=FOLDER
        --config-dir nowhere x=1 | there is no such folder
        --config-dir | expected one argument
        --config-name other | --config-dir FOLDER
        --cfg foo | invalid choice
        help=foo | no such group
        experiment=dropout | is a sweep: add -m
        -m experiment=dropout,pooling | one after the other
        -m 'seed=range(0)' | no value in it
        -m 'seed=choice()' | empty choice
        -m 'optimizer.lr=interval(0,1)' | optuna draws from intervals
        -m sweep.cases=3 seed=0 | expected list[str]
        -m sweep.cases=[a] seed=0 | a: expected key=value
        -m trainer.devices=2 seed=0,1 | a sweep gives each job one device
        -m hydra/launcher=joblb seed=0,1 | joblb
        -m hydra/launcher=joblib hydra.launcher.n_jobs=x seed=0,1 | or -1 for one for each core
        -m hydra/launcher=joblib hydra.launcher.n_jobs=0 seed=0,1 | a number of jobs, or -1 for
        -m hydra/launcher=joblib hydra.launcher.batch_size=0 seed=0,1 | expected int in [1, inf)
        -m hydra/launcher=joblib hydra.launcher.njobs=2 seed=0,1 | Did you mean hydra.launcher.n_jobs
        -m hydra/launcher=joblib +hydra.launcher.foo=1 seed=0,1 | hydra.launcher.foo: no such key
        -m hydra/launcher=joblib +hydra.launcher.verbose=x seed=0,1 | hydra.launcher.verbose=x: Value
        -m hydra/launcher=submitit_local +hydra.launcher.tasks_per_node=2 seed=0,1 | expected 1
        -m hydra.launcher._target_=os.system seed=0,1 | Hydra has no such plugin
        -m hydra.launcher=null seed=0,1 | hydra/launcher=… chooses one
        -m hydra.sweeper.params=3 seed=0,1 | expected dict or null
        -m +hydra.sweeper.foo=3 seed=0,1 | hydra.sweeper.foo: no such key
        -m hydra.sweep.dir=elsewhere seed=0,1 | sweep.name= say where runs go
        hydra.run.dir=elsewhere | say where runs go
        hydra.job.chdir=true | say where runs go
        -m hydra/launcher=submitit_local hydra.launcher.timeout_min=0 seed=0,1 | expected int in [1, inf)
        -m hydra/launcher=submitit_slurm seed=0,1 | there is no srun here
        -m hydra/sweeper=halvin seed=0,1 | Did you mean halving?
        -m hydra/sweeper=halving hydra.sweeper.factor=1 seed=0,1 | expected int in [2, inf)
        -m hydra/sweeper=halving hydra.sweeper.factr=2 seed=0,1 | Did you mean hydra.sweeper.factor?
        -m hydra.sweeper.max_batch_size=0 seed=0,1 | expected int in [1, inf)
        -m sweep.until=decidedd seed=0,1 | Did you mean decided?
        -m sweep.until=decided seed=0,1 | there is no claim to decide
        -m 'seed=range(3' | cannot be read
        -m 'seed=glob(*)' | no value in it
        -m 'model=glob(x*)' | no such option
        -m 'optimizer.lr=choice(0.1,0.2),0.3' | cannot be read
        -m experiment=label_smoothing loss.label_smoothing=0,2 | loss.label_smoothing=2
        -m sweep.dry_rn=true seed=0,1 | Did you mean sweep.dry_run=true?
        -m hydra/sweeper=basic sweep.dry_run=true seed=0,1 | basic draws its jobs only while it runs""",
    "evaluate.py": """
        | folder of a run
        run | expected key=value. Did you mean run=run?
        run= | the value is missing
        run=nowhere | does not exist
        run=file.txt | it is a file
        run=empty | has no config.yaml
        run=damaged | is damaged
        run=binary | is damaged
        run=evil | loss._target_=os.system
        run=unreadable | config.yaml
        'run=ünï cöde' | is not a run folder
        rum=run | Did you mean run?
        --run run | expected key=value
        run=run run=run | given twice
        run=run ckpt= | the value is missing
        run=run ckpt=frist | takes best, last or the path
        run=run ckpt=file.txt | not a whole checkpoint
        run=run ckpt=empty | takes best, last or the path
        run=bare | no checkpoint""",
    "predict.py": """
        run=run | an image or a folder of images
        images=empty | folder of a run
        run=run images= | the value is missing
        run=run images=nowhere | does not exist
        run=run images=empty | holds no image
        run=run images=pipe | neither an image nor a folder of images
        run=run images=file.txt invert=maybe | invert=maybe: expected auto | true | false (
        run=run/checkpoints images=empty | is not a run folder
        run=run images=file.txt | not a readable image
        run=bare images=empty | no checkpoint
        run=evil images=empty | loss._target_=os.system""",
    "export.py": """
        run=run | format= is missing: format of the file
        run=run format=onx | onnx | safetensors | torch_export
        run=run format= | the value is missing
        run=evil format=onnx | loss._target_=os.system
        run=bare format=onnx | no checkpoint
        run=run format=safetensors out=file.txt/x.safetensors | x.safetensors cannot be written
        run=run format=onnx foo=1 | no such key
        run=run format=safetensors out=empty | needs to end with .safetensors""",
    "report.py": """
        | which runs?
        nowhere | no such folder
        file.txt | no such folder
        empty | no finished run
        run out= | the value is missing
        run delta=-1 | expected float in (0, inf)
        run delta=nan | expected float in (0, inf)
        run out=file.txt | is something else than a report
        run out=file.txt/x | no report can be written to
        -x | there is no such folder
        run delta=x | expected float in (0, inf)
        out=x | which runs?""",
    "grade.py": """
        nothing.py | nothing.py does not exist
        file.txt | is no exercise
        empty | holds no exercise
        --foo | does not exist""",
    "lightning_modules/data/digits.py": """
        | name the folder of MNIST's unpacked files
        empty | name the folder of MNIST's unpacked files""",
}
CASES = [
    (script, *map(str.strip, line.partition(" | ")[::2] if " | " in line else ("", line.strip(" |"))))
    for script, lines in WRONG.items()
    for line in lines.strip("\n").splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, runs that are damaged in different ways, and what is no run."""
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("run", "damaged", "binary", "interpolated", "evil", "bare", "unreadable"):
        shutil.copytree(Path(__file__).parent / "old_runs" / "finished", folder / name)
    config = (folder / "run" / "config.yaml").read_text()
    (folder / "damaged" / "config.yaml").write_text("a: [1")
    (folder / "binary" / "config.yaml").write_bytes(bytes(range(128, 256)))
    (folder / "interpolated" / "config.yaml").write_text(config.replace("seed: 0", "seed: ${oc.env:HOME}"))
    (folder / "evil" / "config.yaml").write_text(config.replace("torch.nn.CrossEntropyLoss", "os.system"))
    (folder / "unreadable" / "config.yaml").chmod(0)
    shutil.rmtree(folder / "bare" / "checkpoints")
    for name in ("empty", "ünï cöde"):
        (folder / name).mkdir()
    (folder / "file.txt").write_text("no run")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(("script", "arguments", "message"), CASES)
def test_it_is_told(script, arguments, message, folder, run_entry_point, monkeypatch):
    if "unreadable" in arguments and os.access(folder / "unreadable" / "config.yaml", os.R_OK):
        pytest.skip("this user may read everything")
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    done = run_entry_point(script, *shlex.split(arguments.replace("LONG", LONG)))
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) < 16
    assert sorted(folder.rglob("*")) == before
