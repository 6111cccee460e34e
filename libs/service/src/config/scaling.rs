//! `[group.<name>.scaling]` and `[autoscaler]`.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};
use understudy_scaling::{Forecast, GroupRules, Load, Repair, Rules, Schedule, Shared, Target};
use understudy_wire::GroupId;

use super::group::Group;

/// `[autoscaler]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Autoscaler {
    /// Time between two decisions.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// The group whose slot 0 elects the one autoscaler that acts (rule R12): one without VIPs.
    pub group: Option<GroupId>,
}

impl Default for Autoscaler {
    fn default() -> Self {
        Self { interval: Rules::INTERVAL, group: None }
    }
}

/// `[group.<name>.scaling]`: what the autoscaler keeps the group at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scaling {
    /// Least N; the group's `active` when left out.
    pub min: Option<u16>,
    /// Largest N; the group's `active` when left out.
    pub max: Option<u16>,
    /// Label whose values are failure domains.
    pub spread: Option<String>,
    /// How long a new member takes until it is ready.
    #[serde(with = "humantime_serde")]
    pub start_up: Duration,
    /// Most members that start at a time.
    pub in_flight: u16,
    /// Longest drain.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// See [`Load::tolerance_out`].
    pub tolerance_out: f64,
    /// See [`Load::tolerance_in`].
    pub tolerance_in: f64,
    /// See [`Load::window_out`].
    #[serde(with = "humantime_serde")]
    pub window_out: Duration,
    /// See [`Load::window_in`].
    #[serde(with = "humantime_serde")]
    pub window_in: Duration,
    /// See [`Load::cooldown_out`].
    #[serde(with = "humantime_serde")]
    pub cooldown_out: Duration,
    /// See [`Load::cooldown_in`].
    #[serde(with = "humantime_serde")]
    pub cooldown_in: Duration,
    /// See [`Load::step_out`].
    pub step_out: u16,
    /// See [`Load::step_in`].
    pub step_in: u16,
    /// See [`Load::stale_after`].
    #[serde(with = "humantime_serde")]
    pub stale_after: Duration,
    /// Self-healing.
    pub repair: RepairConfig,
    /// Load signals and what they are kept at.
    #[serde(rename = "target")]
    pub targets: Vec<TargetConfig>,
    /// Resources behind the members.
    pub shared: Vec<SharedConfig>,
    /// Known peaks.
    #[serde(rename = "schedule")]
    pub schedules: Vec<ScheduleConfig>,
    /// Forecast from history; off when left out.
    pub forecast: Option<ForecastConfig>,
    /// How members are started.
    pub template: Option<Template>,
}

impl Default for Scaling {
    fn default() -> Self {
        let (load, usual) = (Load::default(), GroupRules::fixed(1, 1));
        Self {
            min: None,
            max: None,
            spread: None,
            start_up: usual.start_up,
            in_flight: usual.in_flight,
            drain: usual.drain,
            tolerance_out: load.tolerance_out,
            tolerance_in: load.tolerance_in,
            window_out: load.window_out,
            window_in: load.window_in,
            cooldown_out: load.cooldown_out,
            cooldown_in: load.cooldown_in,
            step_out: load.step_out,
            step_in: load.step_in,
            stale_after: load.stale_after,
            repair: RepairConfig::default(),
            targets: Vec::new(),
            shared: Vec::new(),
            schedules: Vec::new(),
            forecast: None,
            template: None,
        }
    }
}

/// `[group.<name>.scaling.repair]`: see [`Repair`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RepairConfig {
    #[serde(with = "humantime_serde")]
    pub after: Duration,
    pub restart: bool,
    #[serde(with = "humantime_serde")]
    pub restart_for: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    pub budget: u32,
}

impl Default for RepairConfig {
    fn default() -> Self {
        let Repair { after, restart, restart_for, backoff, backoff_max, budget } = Repair::default();
        Self { after, restart, restart_for, backoff, backoff_max, budget }
    }
}

/// `[[group.<name>.scaling.target]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Name of the load signal.
    pub signal: String,
    /// Mean over the serving members.
    pub value: f64,
}

/// `[[group.<name>.scaling.shared]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedConfig {
    /// Name of the load signal.
    pub signal: String,
    /// From this value on more members cannot help.
    pub full: f64,
}

/// `[[group.<name>.scaling.schedule]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Minute, hour, day of month, month, day of week; UTC.
    #[serde(deserialize_with = "cron")]
    pub cron: String,
    /// How long it holds from then on.
    #[serde(with = "humantime_serde")]
    pub lasts: Duration,
    /// N, at least.
    pub active: u16,
}

fn cron<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let text = String::deserialize(input)?;
    Schedule::new(&text, Duration::ZERO, 1).map_err(Error::custom)?;
    Ok(text)
}

/// `[group.<name>.scaling.forecast]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForecastConfig {
    /// Length of one season.
    #[serde(with = "humantime_serde")]
    pub season: Duration,
}

impl Default for ForecastConfig {
    fn default() -> Self {
        Self { season: Duration::from_secs(86_400) }
    }
}

/// `[group.<name>.scaling.template]`: how the driver starts a member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Who starts members.
    pub driver: Driver,
    /// How long one call of the driver may take; a slower one counts as failed.
    #[serde(default = "Template::default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// `docker`: image of a member.
    #[serde(default)]
    pub image: String,
    /// `docker`: command in place of the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// `docker`: environment of a member.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `docker`: networks of a member.
    #[serde(default)]
    pub networks: Vec<String>,
    /// `swarm`: name of the service.
    #[serde(default)]
    pub service: String,
    /// `kubernetes`: namespace.
    #[serde(default)]
    pub namespace: String,
    /// `kubernetes`: `statefulset/web`, of the group's name.
    #[serde(default)]
    pub workload: String,
    /// `kubernetes`: file that says where the API server is; without it, as the pod's service account says.
    #[serde(default)]
    pub kubeconfig: String,
    /// `exec`: starts a member.
    #[serde(default)]
    pub start: Vec<String>,
    /// `exec`: stops and deletes a member.
    #[serde(default)]
    pub remove: Vec<String>,
    /// `exec`: restarts a member in place; without it none is.
    #[serde(default)]
    pub restart: Vec<String>,
    /// `exec`: lists the members.
    #[serde(default)]
    pub list: Vec<String>,
}

impl Template {
    /// Long enough for an engine to take in a container under load; an image that has to be fetched first takes longer.
    fn default_timeout() -> Duration {
        Duration::from_secs(30)
    }
}

/// Who starts members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Docker Engine API.
    Docker,
    /// A Swarm service.
    Swarm,
    /// The scale subresource of a workload.
    Kubernetes,
    /// Commands.
    Exec,
}

impl Driver {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Swarm => "swarm",
            Self::Kubernetes => "kubernetes",
            Self::Exec => "exec",
        }
    }
}

impl Group {
    /// Largest N: slots that may ever be open.
    pub fn most_active(&self) -> u16 {
        self.scaling.as_ref().and_then(|scaling| scaling.max).unwrap_or(self.active).max(self.active)
    }

    /// Rules for the autoscaler; `None` where the group is not scaled.
    pub fn scaling_rules(&self) -> Option<GroupRules> {
        let scaling = self.scaling.as_ref()?;
        let RepairConfig { after, restart, restart_for, backoff, backoff_max, budget } =
            scaling.repair.clone();
        let target = |target: &TargetConfig| Target { signal: target.signal.clone(), value: target.value };
        let shared = |shared: &SharedConfig| Shared { signal: shared.signal.clone(), full: shared.full };
        // An expression that cannot be read was refused when the file was read.
        let schedule = |plan: &ScheduleConfig| Schedule::new(&plan.cron, plan.lasts, plan.active).ok();
        Some(GroupRules {
            min: scaling.min.unwrap_or(self.active),
            max: scaling.max.unwrap_or(self.active),
            standby: self.standby,
            spread: scaling.spread.clone(),
            start_up: scaling.start_up,
            in_flight: scaling.in_flight,
            drain: scaling.drain,
            repair: Repair { after, restart, restart_for, backoff, backoff_max, budget },
            load: Load {
                targets: scaling.targets.iter().map(target).collect(),
                shared: scaling.shared.iter().map(shared).collect(),
                tolerance_out: scaling.tolerance_out,
                tolerance_in: scaling.tolerance_in,
                window_out: scaling.window_out,
                window_in: scaling.window_in,
                cooldown_out: scaling.cooldown_out,
                cooldown_in: scaling.cooldown_in,
                step_out: scaling.step_out,
                step_in: scaling.step_in,
                stale_after: scaling.stale_after,
            },
            schedules: scaling.schedules.iter().filter_map(schedule).collect(),
            forecast: scaling.forecast.as_ref().map(|forecast| Forecast { season: forecast.season }),
        })
    }
}

impl super::Config {
    /// Groups that are scaled.
    pub fn scaled_groups(&self) -> Vec<GroupId> {
        let scaled = self.groups.iter().filter(|(_, group)| group.scaling.is_some());
        scaled.map(|(id, _)| id.clone()).collect()
    }

    /// Rules of all groups that are scaled.
    pub fn scaling_rules(&self) -> Rules {
        let rules = self.groups.iter().filter_map(|(id, group)| Some((id.clone(), group.scaling_rules()?)));
        Rules { interval: self.autoscaler.interval, groups: rules.collect() }
    }
}
