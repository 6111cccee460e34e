//! The stack of docker-compose.yml on the real engine, a module for what belongs together.

mod config;
mod containers;
mod driver_docker;
mod faults;
mod load;
mod locked;
mod members;
mod name_server;
mod observability;
mod proxy;
mod readme;
mod restart;
mod scaling;
mod secrets;
mod swarm;
