//! Several devices of one kind: the first as it is, the others beside it for trials at the same time.

use spec::Problem;

use crate::{
    device::{Description, Device, Failure, Kind},
    evolve::{
        crew::Hand,
        settings::{Lab, Peers},
    },
};

/// Opens one further device.
pub(super) type Opener = Box<dyn FnMut() -> Result<Hand, Failure>>;

/// A lab with further devices.
pub(super) struct Several {
    first: Box<dyn Lab>,
    /// What the first is, once it was opened.
    opened: Option<Description>,
    others: Vec<Opener>,
}

impl Several {
    pub(super) fn new(first: Box<dyn Lab>, others: Vec<Opener>) -> Self {
        Self { first, opened: None, others }
    }
}

impl Lab for Several {
    fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
        let device = self.first.open()?;
        self.opened = Some(device.description().clone());
        Ok(device)
    }

    /// Times of one run must be comparable, so that all must be of one model; and a GPU must not be counted twice.
    fn others(&mut self) -> Result<Vec<Hand>, Failure> {
        let mut descriptions: Vec<Description> = self.opened.iter().cloned().collect();
        let mut hands = Vec::new();
        for open in &mut self.others {
            let hand = open()?;
            comparable(&descriptions, hand.description())?;
            descriptions.push(hand.description().clone());
            hands.push(hand);
        }
        Ok(hands)
    }

    fn peers(&mut self, problem: &Problem) -> Peers {
        self.first.peers(problem)
    }

    fn cpu_machine(&mut self) -> Result<Box<dyn Device>, Failure> {
        self.first.cpu_machine()
    }
}

fn comparable(known: &[Description], new: &Description) -> Result<(), Failure> {
    let [first, ..] = known else { return Ok(()) };
    let alike = |device: &Description| (device.kind, device.name.clone(), device.driver.clone(), device.limits);
    if alike(first) != alike(new) {
        let what = |device: &Description| format!("{} with driver {}", device.name, device.driver);
        return Err(Failure::Device(format!(
            "a run needs GPUs of one model; the first is {}, another is {}",
            what(first),
            what(new)
        )));
    }
    if !new.uuid.is_empty() && new.kind == Kind::Cuda && known.iter().any(|old| old.uuid == new.uuid) {
        return Err(Failure::Device(format!("GPU {} was named twice", new.uuid)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spec::DeviceLimits;

    use super::*;

    #[test]
    fn gpus_of_one_run_are_alike_and_each_is_there_once() {
        let gpu = |name: &str, uuid: &str| Description {
            kind: Kind::Cuda,
            name: name.into(),
            uuid: uuid.into(),
            driver: "1".into(),
            limits: DeviceLimits::H100,
        };
        let first = [gpu("H100", "GPU-0")];
        assert_eq!(comparable(&first, &gpu("H100", "GPU-1")), Ok(()));
        let refused = |device: &Description| comparable(&first, device).unwrap_err().to_string();
        assert!(refused(&gpu("L4", "GPU-1")).ends_with("the first is H100 with driver 1, another is L4 with driver 1"));
        assert!(refused(&gpu("H100", "GPU-0")).ends_with("GPU GPU-0 was named twice"));
        let cpu = Description { kind: Kind::Simt, ..gpu("CPU machine", "") };
        assert_eq!(comparable(std::slice::from_ref(&cpu), &cpu), Ok(()));
    }
}
