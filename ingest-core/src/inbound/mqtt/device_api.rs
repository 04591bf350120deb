//! What becomes of a publication in ThingsBoard's device API: events, a result, a question that is answered, or something that the
//! database does for the device.

use std::sync::Arc;

use uuid::Uuid;

use super::codec::ReasonCode;
use super::dialogue::Said;
use super::in_flight::Answer;
use super::publications::{Message, Publications, Taking, Turn, Unfit};
use super::topics::{Channel, Topic};
use crate::inbound::awaited::Awaited;
use crate::inbound::formats::thingsboard::{
    AttributeRequest, ClaimOffer, GatewayAttributeRequest, GatewayResponse, ServiceLimits,
    answer_to_device, attributes, gateway_attributes, gateway_claims, gateway_device,
    gateway_telemetry, result_body, telemetry,
};
use crate::inbound::formats::{FormatError, Told};
use crate::node::DeviceDesk;

impl Publications<'_> {
    /// # Errors
    /// Why it is not what its topic says.
    pub(super) fn take_of_thingsboard(
        &self,
        topic: Topic<'_>,
        message: Message<'_>,
        turn: Turn<'_>,
    ) -> Result<Taking, Unfit> {
        let Message { topic: to, payload } = message;
        let told = Told { topic: to, payload };
        let own = self.intake.device_id;
        let child_of = |name: &str| self.node.registry.child_of(own, name);
        match topic {
            Topic::Telemetry => self.take_decoded(&telemetry(payload)?),
            Topic::Attributes => self.take_decoded(&attributes(payload)?),
            Topic::GatewayTelemetry => self.take_decoded(&gateway_telemetry(told, &child_of)?),
            Topic::GatewayAttributes => self.take_decoded(&gateway_attributes(told, &child_of)?),
            Topic::RpcResponse { number } => {
                let request_id = request_of(&turn, number)?;
                self.take_result(&result_body(&request_id, payload)?, turn)
            }
            Topic::GatewayRpcResponse => {
                let response = GatewayResponse::read(payload)?;
                let request_id = request_of(&turn, &response.number())?;
                self.take_result(&response.result_body(&request_id)?, turn)
            }
            Topic::AttributeRequest { number, responses } => {
                let request = AttributeRequest::read(payload)?;
                let (channel, topic) = response_to(number, responses);
                let is_asked = turn
                    .dialogue
                    .ask_attributes(own, move |known| Said::Answer {
                        channel,
                        topic,
                        payload: request.answer(known),
                    });
                Ok(taken_or_busy(is_asked))
            }
            Topic::GatewayAttributeRequest => self.take_gateway_request(payload, turn),
            Topic::DeviceRpc { number, responses } => {
                let payload = answer_to_device(payload, self.limits())?;
                let (channel, topic) = response_to(number, responses);
                let is_said = turn.dialogue.say(Said::Answer {
                    channel,
                    topic,
                    payload,
                });
                Ok(taken_or_busy(is_said))
            }
            Topic::GatewayConnect => {
                let child = self.child(&gateway_device(payload)?)?;
                let (live, peer) = (&self.node.live, self.peer);
                turn.dialogue
                    .child_came(child, || live.connected(child, peer.protocol, peer.address));
                Ok(Taking::done(Answer::SUCCESS))
            }
            Topic::GatewayDisconnect => {
                let child = self.child(&gateway_device(payload)?)?;
                turn.dialogue.child_left(child);
                Ok(Taking::done(Answer::SUCCESS))
            }
            Topic::Claim => Ok(self.take_claims(ClaimOffer::read(payload).map(|o| vec![(own, o)]))),
            Topic::GatewayClaim => Ok(self.take_claims(self.claims_of_children(payload))),
            // What was asked for holds a secret, so it is not kept.
            Topic::Provision => Ok(Taking::done(Answer::refusal(
                ReasonCode::NotAuthorized,
                "a device that has a token is given no other one",
            ))),
            Topic::Events
            | Topic::Result { .. }
            | Topic::Senml
            | Topic::Tasmota(_)
            | Topic::Shelly(_)
            | Topic::Zigbee(_)
            | Topic::ShellyAnswer
            | Topic::Unknown => Err(FormatError::Topic.into()),
        }
    }

    fn limits(&self) -> ServiceLimits {
        ServiceLimits {
            payload_bytes_max: self.node.config.frame_bytes_max,
            inflight_messages_max: self.node.config.inflight_frames_max,
        }
    }

    fn child(&self, name: &str) -> Result<Uuid, Unfit> {
        let child = self.node.registry.child_of(self.intake.device_id, name);
        child.ok_or_else(|| Unfit::payload("no enabled child of this gateway is called so"))
    }

    fn take_gateway_request(&self, payload: &[u8], turn: Turn<'_>) -> Result<Taking, Unfit> {
        let request = GatewayAttributeRequest::read(payload)?;
        let child = self.child(&request.device)?;
        let is_asked = turn
            .dialogue
            .ask_attributes(child, move |known| Said::Answer {
                channel: Channel::GatewayAttributeResponses,
                topic: super::thingsboard::GATEWAY_ATTRIBUTE_RESPONSES.to_owned(),
                payload: request.answer(known),
            });
        Ok(taken_or_busy(is_asked))
    }

    fn claims_of_children(&self, payload: &[u8]) -> Result<Vec<(Uuid, ClaimOffer)>, FormatError> {
        let of_child = |(name, offer): (String, ClaimOffer)| {
            let child = self.node.registry.child_of(self.intake.device_id, &name);
            let unknown = FormatError::Shape("no enabled child of this gateway is called so");
            Ok((child.ok_or(unknown)?, offer))
        };
        gateway_claims(payload)?.into_iter().map(of_child).collect()
    }

    /// What cannot be understood is refused and not kept: it holds a secret.
    fn take_claims(&self, offers: Result<Vec<(Uuid, ClaimOffer)>, FormatError>) -> Taking {
        match offers {
            Err(error) => Taking::done(Answer::refusal(
                ReasonCode::PayloadFormatInvalid,
                error.to_string(),
            )),
            Ok(offers) => {
                let desk = Arc::clone(&self.node.desk);
                Taking::Asked(Box::pin(async move { offer_claims(&desk, offers).await }))
            }
        }
    }
}

/// The answer is that for the first that is not as it was wanted.
async fn offer_claims(desk: &DeviceDesk, offers: Vec<(Uuid, ClaimOffer)>) -> Answer {
    for (device, offer) in offers {
        match desk
            .offer_claim(device, offer.code_hash, offer.duration_ms)
            .await
        {
            Ok(outcome) => {
                if let Some(refusal) = outcome.refusal() {
                    return Answer::refusal(ReasonCode::NotAuthorized, refusal);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a device cannot offer itself for now");
                return Answer::not_now("the database is away: send it again");
            }
        }
    }
    Answer::SUCCESS
}

pub(super) fn request_of(turn: &Turn<'_>, number: &str) -> Result<Arc<str>, Unfit> {
    let request_id = turn.deliveries.numbered.request_of(number);
    request_id.ok_or_else(|| Unfit::payload("no command was sent under this number"))
}

fn response_to(number: &str, responses: &'static str) -> (Channel, String) {
    let topic = format!("{responses}{number}");
    (Channel::Responses { topic: responses }, topic)
}

fn taken_or_busy(is_taken: bool) -> Taking {
    Taking::done(match is_taken {
        true => Answer::SUCCESS,
        false => Answer::refusal(
            // Clients of ThingsBoard take it, and 0x83, for a limit of their rate.
            ReasonCode::QuotaExceeded,
            "too many questions wait for their answers",
        ),
    })
}

impl Taking {
    /// There is nothing to wait for.
    fn done(answer: Answer) -> Self {
        Self::InFlight {
            awaited: Awaited::Nothing,
            answer,
        }
    }
}
