//! The controller's adapters: control loop, local actuator, decisions over HTTP.
