//! What the race check knows of who has learnt of what: clocks, see [`crate::race`].

use crate::WARP;

/// A warp, the copies of an mbarrier, or the products of a warpgroup.
pub(crate) type Agent = u32;

/// What somebody knows of others, or tells them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    /// By agent: all it did up to this clock.
    agents: Vec<u32>,
    /// Threads of which more is known than of their warps, each with its clock.
    threads: Vec<(u32, u32)>,
}

impl Knowledge {
    pub(crate) fn of_agent(&self, agent: Agent) -> u32 {
        self.agents.get(agent as usize).copied().unwrap_or(0)
    }

    pub(crate) fn of_thread(&self, thread: u32) -> u32 {
        let own = self.threads.iter().find(|(other, _)| *other == thread);
        own.map_or(0, |&(_, clock)| clock).max(self.of_agent(thread / WARP))
    }

    pub(crate) fn learn_agent(&mut self, agent: Agent, clock: u32) {
        if self.agents.len() <= agent as usize {
            self.agents.resize(agent as usize + 1, 0);
        }
        let known = &mut self.agents[agent as usize];
        *known = clock.max(*known);
    }

    pub(crate) fn learn_thread(&mut self, thread: u32, clock: u32) {
        if self.of_thread(thread) < clock {
            self.threads.retain(|(other, _)| *other != thread);
            self.threads.push((thread, clock));
        }
    }

    /// Adds what the other knows.
    pub(crate) fn join(&mut self, other: &Self) {
        if self.agents.len() < other.agents.len() {
            self.agents.resize(other.agents.len(), 0);
        }
        for (known, &told) in self.agents.iter_mut().zip(&other.agents) {
            *known = told.max(*known);
        }
        for &(thread, clock) in &other.threads {
            self.learn_thread(thread, clock);
        }
        let agents = &self.agents;
        self.threads.retain(|&(thread, clock)| agents.get((thread / WARP) as usize).is_none_or(|&all| all < clock));
    }
}
