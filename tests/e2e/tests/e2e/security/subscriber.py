"""A subscriber in another language, with nothing of Understudy but a viewer's credential: prints the first event of a
kind as one CloudEvents JSON object.

    subscriber.py SERVER CA_FILE SEED_FILE PUBLIC_KEY_FILE KIND
"""

import asyncio
import json
import pathlib
import ssl
import sys

import nats

# The test waits no longer for the event either.
LIMIT = 60


async def main(server, ca, seed, public_key, kind):
    event = asyncio.get_running_loop().create_future()

    async def on_message(message):
        headers = message.headers or {}
        # CloudEvents, NATS protocol binding, binary content mode: attributes are headers named ce-*.
        found = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
        found["datacontenttype"] = headers.get("content-type")
        found["data"] = json.loads(message.data)
        if message.subject.split(".")[-1] == kind and not event.done():
            event.set_result(found)

    inbox = "_INBOX." + pathlib.Path(public_key).read_text().strip()
    client = await nats.connect(
        server, tls=ssl.create_default_context(cafile=ca), nkeys_seed=seed, inbox_prefix=inbox.encode()
    )
    await client.subscribe("understudy.lab.event.>", cb=on_message)
    await client.flush()
    print("subscribed", flush=True)
    print(json.dumps(await asyncio.wait_for(event, LIMIT)), flush=True)
    await client.close()


asyncio.run(main(*sys.argv[1:]))
