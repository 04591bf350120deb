"""A device, or a gateway, through ThingsBoard's own client SDK, in a process of its own: the SDK brings a copy of paho along.

It is told what to do in lines of JSON, and says in lines of JSON what came of it and what it heard.
"""

import json
import sys
import time
from typing import Any

# Found in the directory that the test puts before all others.
from tb_device_mqtt import TBDeviceMqttClient
from tb_gateway_mqtt import TBGatewayMqttClient

SECONDS = 20


def say(**what: object) -> None:
    """Say something to who drives this."""
    print(json.dumps(what), flush=True)


class Peer:
    """What a line may ask for, by its name."""

    def __init__(self, port: int, token: str, kind: str) -> None:
        self.port = port
        made = TBGatewayMqttClient if kind == "gateway" else TBDeviceMqttClient
        self.client: Any = made("127.0.0.1", port=port, username=token)

    def connect(self) -> None:
        """Connect, and hear everything that the server may say."""
        self.client.set_server_side_rpc_request_handler(lambda number, content: say(rpc=content, number=number))
        if isinstance(self.client, TBGatewayMqttClient):
            self.client.gw_set_server_side_rpc_request_handler(lambda _client, content: say(gateway_rpc=content))
            self.client.gw_subscribe_to_all_attributes(lambda content: say(gateway_attributes=content))
        else:
            self.client.subscribe_to_all_attributes(lambda content, *_: say(attributes=content))
        self.client.connect()
        # Its callback is lost where the connection is there before it is set.
        deadline = time.monotonic() + SECONDS
        while not self.client.is_connected():
            assert time.monotonic() < deadline, "not connected"
            time.sleep(0.01)

    def send(self, name: str, *given: Any) -> int:
        """Call something that publishes, and wait for the acknowledgement."""
        return int(getattr(self.client, name)(*given).get())

    def ask(self, name: str, *given: Any) -> None:
        """Call something that is answered."""
        # One kind of answer comes behind its number.
        getattr(self.client, name)(*given, lambda *told: say(answer=next(one for one in told if isinstance(one, dict))))

    def reply(self, name: str, *given: Any) -> None:
        """Call something that is neither."""
        getattr(self.client, name)(*given)

    def provision(self, key: str, secret: str, name: str) -> Any:
        """Ask for a token."""
        return TBDeviceMqttClient.provision("127.0.0.1", key, secret, port=self.port, device_name=name)

    def stop(self) -> None:
        """Say DISCONNECT."""
        self.client.disconnect()
        self.client.stop()


def main() -> None:
    """Do what the lines say, until they end."""
    peer = Peer(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    for line in sys.stdin:
        name, *given = json.loads(line)
        say(did=name, result=getattr(peer, name)(*given))


if __name__ == "__main__":
    main()
