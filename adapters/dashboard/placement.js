// The dialog that moves a partition, to another shard or member.

import { path, post } from "./api.js";
import { ask } from "./dialog.js";
import { complain, say } from "./notice.js";

/** @type {(index: number, whereTo: string, text: string) => Promise<void>} */
export async function movePartition(index, whereTo, text) {
  const field = { name: "to", label: `To ${whereTo}`, required: true, kind: /** @type {"json"} */ ("json") };
  const given = await ask({ title: `Move partition ${index}?`, text, action: "Move", fields: [field] });
  if (!given) return;
  try {
    await post(path`partitions/${index}/move`, { body: { to: given.to } });
    say(`${whereTo[0].toUpperCase()}${whereTo.slice(1)} ${given.to} serves partition ${index}`);
  } catch (error) {
    complain(error);
  }
}
