//! Devices in worker processes of this program.

use std::time::Duration;

use spec::{Problem, Sm};

use crate::{
    device::{
        Device, Failure, Pace, TimingPlan,
        remote::{Patience, Remote},
    },
    evolve::settings::{Lab, Peer, Peers},
    measure::baseline::{self, Backend, BaselineOutcome},
};

/// How long a GPU may take to answer. Less than a CPU machine needs: a kernel that hangs costs the GPU's time.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How long the peers may take together: Python and its libraries start slowly.
const PEERS_LIMIT: Duration = Duration::from_secs(180);
/// Samples of each peer, before and after ours.
const PEER_ROUNDS: u32 = 20;

/// Opens GPU number `ordinal`.
pub(super) struct Gpu {
    pub(super) ordinal: u32,
    uuid: String,
    sm: Sm,
}

impl Gpu {
    pub(super) fn new(ordinal: u32) -> Self {
        Self { ordinal, uuid: String::new(), sm: Sm::Sm80 }
    }
}

impl Lab for Gpu {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        let device = gpu(self.ordinal, ANSWER_LIMIT)?;
        self.uuid.clone_from(&device.description().uuid);
        self.sm = device.description().limits.sm;
        Ok(Box::new(device))
    }

    fn peers(&mut self, problem: &Problem) -> Peers {
        let plan = TimingPlan { rounds: PEER_ROUNDS, cold: true, seed: 0, pace: Pace::Sustained };
        match baseline::measure("python3".as_ref(), &self.uuid, problem, &Backend::ALL, &plan, PEERS_LIMIT) {
            Ok(found) => {
                let cudnn = found.cudnn.map(|version| format!(", cuDNN {version}")).unwrap_or_default();
                let mut peers =
                    Peers { peers: vec![], notes: vec![format!("peers ran on PyTorch {}{cudnn}", found.torch)] };
                for (backend, outcome) in found.outcomes {
                    let name = backend.name().to_owned();
                    match outcome {
                        BaselineOutcome::Measured(of) => {
                            peers.peers.push(Peer { name, hot_us: of.hot_us, cold_us: of.cold_us, recorded: None });
                        }
                        BaselineOutcome::Refused(why) => peers.notes.push(format!("{name} did not run: {why}")),
                    }
                }
                peers
            }
            Err(error) => Peers { peers: vec![], notes: vec![error.to_string()] },
        }
    }

    fn cpu_machine(&mut self) -> Result<Box<dyn Device>, Failure> {
        CpuMachine(self.sm).open()
    }
}

/// GPU number `ordinal`, which may take so long to answer.
pub(in crate::cli) fn gpu(ordinal: u32, answer: Duration) -> Result<Remote, Failure> {
    let patience = Patience {
        answer,
        per_case: Duration::from_secs(3),
        per_round: Duration::from_millis(200),
        ..Patience::default()
    };
    start(&["--device", &format!("cuda:{ordinal}")], patience)
}

/// Opens the CPU machine with the limits of a target's GPU.
pub(in crate::cli) struct CpuMachine(pub(in crate::cli) Sm);

impl Lab for CpuMachine {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        Ok(Box::new(cpu_machine(self.0)?))
    }

    fn peers(&mut self, _: &Problem) -> Peers {
        Peers { peers: vec![], notes: vec!["modelled times are compared with no measured ones".to_owned()] }
    }
}

/// A CPU machine with the limits of a target's GPU.
pub(super) fn cpu_machine(sm: Sm) -> Result<Remote, Failure> {
    start(&["--device", "simt", "--sm", sm.name()], Patience::default())
}

fn start(arguments: &[&str], patience: Patience) -> Result<Remote, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::Device(error.to_string()))?;
    Remote::start(program, std::iter::once(&"worker").chain(arguments), patience)
}
