//! Devices that speak MQTT.

pub mod codec;
