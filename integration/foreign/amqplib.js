// What amqplib does with a broker, by itself: node amqplib.js URL PREFIX SCENARIO. Exit code 0: all that it asserts held.
"use strict";

const assert = require("assert");
const { once } = require("events");
const amqp = require("amqplib");

const WAIT_MAX_MS = 10_000;
const OWN = { exclusive: true };

const within = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${WAIT_MAX_MS} ms`)), WAIT_MAX_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const next = (channel, queue) =>
  within(
    new Promise((resolve, reject) => {
      const tag = `next-${queue}`;
      channel
        .consume(queue, (message) => channel.cancel(tag).then(() => resolve(message), reject), { consumerTag: tag })
        .catch(reject);
    }),
    `a message from ${queue}`,
  );

const bodies = async (channel, queue) => {
  const found = [];
  for (let message; (message = await channel.get(queue, { noAck: true })); ) found.push(message.content.toString());
  return found;
};

const send = async (channel, queue, body, options) => {
  channel.sendToQueue(queue, Buffer.from(body), options);
  await within(channel.waitForConfirms(), "a confirm");
};

const dying = async (channel, name) => {
  const dead = name("dead");
  await channel.assertQueue(dead, OWN);
  await channel.assertQueue(name("q"), { ...OWN, deadLetterExchange: "", deadLetterRoutingKey: dead });
  return [name("q"), dead];
};

const SCENARIOS = {
  async confirmed_consumed_acknowledged(channel, name) {
    const queue = name("q");
    await channel.assertQueue(queue, OWN);
    await channel.prefetch(2);
    for (let n = 0; n < 5; n++) await send(channel, queue, `${n}`, { headers: { n, text: "ü" }, persistent: true });
    const seen = [];
    await within(
      new Promise((resolve) =>
        channel.consume(queue, (message) => {
          assert.deepStrictEqual(message.properties.headers.text, "ü");
          seen.push(message.content.toString());
          channel.ack(message);
          if (seen.length === 5) resolve();
        }),
      ),
      "five messages",
    );
    assert.deepStrictEqual(seen, ["0", "1", "2", "3", "4"]);
    assert.strictEqual((await channel.checkQueue(queue)).messageCount, 0);
  },

  async rejected_into_the_dead_letter_queue(channel, name) {
    const [queue, dead] = await dying(channel, name);
    await send(channel, queue, "bad");
    channel.reject(await next(channel, queue), false);
    const died = await next(channel, dead);
    const [death] = died.properties.headers["x-death"];
    assert.deepStrictEqual([died.content.toString(), death.reason, death.queue], ["bad", "rejected", queue]);
  },

  async a_time_to_live_ends(channel, name) {
    const [queue, dead] = await dying(channel, name);
    await send(channel, queue, "old", { expiration: 20 });
    const died = await next(channel, dead);
    assert.strictEqual(died.properties.headers["x-death"][0].reason, "expired");
    assert.strictEqual(died.properties.expiration, undefined);
  },

  async topics_are_routed(channel, name) {
    const exchange = name("x");
    await channel.assertExchange(exchange, "topic", { durable: false, autoDelete: true });
    for (const [queue, pattern] of [["a", "order.*.eu"], ["b", "order.#"]]) {
      await channel.assertQueue(name(queue), OWN);
      await channel.bindQueue(name(queue), exchange, pattern);
    }
    for (const key of ["order.new.eu", "order", "other.eu"]) channel.publish(exchange, key, Buffer.from(key));
    await within(channel.waitForConfirms(), "confirms");
    assert.deepStrictEqual(await bodies(channel, name("a")), ["order.new.eu"]);
    assert.deepStrictEqual(await bodies(channel, name("b")), ["order.new.eu", "order"]);
  },

  async headers_are_routed(channel, name) {
    const exchange = name("x");
    await channel.assertExchange(exchange, "headers", { durable: false, autoDelete: true });
    for (const match of ["all", "any"]) {
      await channel.assertQueue(name(match), OWN);
      await channel.bindQueue(name(match), exchange, "", { "x-match": match, a: 1, b: "two" });
    }
    channel.publish(exchange, "", Buffer.from("both"), { headers: { a: 1, b: "two" } });
    channel.publish(exchange, "", Buffer.from("one"), { headers: { a: 1 } });
    await within(channel.waitForConfirms(), "confirms");
    assert.deepStrictEqual(await bodies(channel, name("all")), ["both"]);
    assert.deepStrictEqual(await bodies(channel, name("any")), ["both", "one"]);
  },

  async the_unroutable_is_returned(channel, name) {
    const returned = within(once(channel, "return"), "the return");
    channel.publish("", name("nobody"), Buffer.from("nowhere"), { mandatory: true });
    const [message] = await returned;
    assert.deepStrictEqual([message.fields.replyCode, message.content.toString()], [312, "nowhere"]);
  },

  async a_consumer_is_told_that_its_queue_is_gone(channel, name) {
    await channel.assertQueue(name("q"), OWN);
    const told = new Promise((resolve) => channel.consume(name("q"), resolve));
    await channel.deleteQueue(name("q"));
    assert.strictEqual(await within(told, "the cancel"), null);
  },

  async a_channel_error_has_its_code(channel, name) {
    const failed = within(once(channel, "error"), "the error");
    await assert.rejects(channel.checkQueue(name("nobody")), /404/);
    assert.strictEqual((await failed)[0].code, 404);
  },
};

const main = async ([url, prefix, scenario]) => {
  const connection = await within(amqp.connect(url), "connecting");
  const channel = await connection.createConfirmChannel();
  await SCENARIOS[scenario](channel, (name) => `${prefix}-${name}`);
  await connection.close();
};

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(error.stack);
    process.exit(1);
  },
);
