// The schemas as the minor version before and after this one might have them, by the rules of evolution: a field is
// appended to every table, and a message to the union; or every table lacks its newest field, the union its newest message.

const ENTRY = /^(table )(\w+)( \{\n?)([\s\S]*?)(\n?\s*\})/gm;
const UNION = /(union SchedulerMessage \{)([^}]*?)(\s*\})/;
const id = (field) => Number(field.match(/\(id: (\d+)\)/)[1]);
const fieldsOf = (body) => body.match(/\w+:[^;]*;/g) ?? [];
/** What holds every message together is the major version's. */
const FRAME = ["MessageEnvelope", "Packed", "Body", "Item", "Chunk", "FactRecord"];

function changed(files, change) {
  const table = (whole, table, name, open, body, close) =>
    fieldsOf(body).length === 0 ? whole : table + name + open + change(name, body) + close;
  const plain = (text) => text.replace(/\/\/.*$/gm, "");
  return Object.fromEntries(Object.entries(files).map(([name, text]) => [name, plain(text).replace(ENTRY, table)]));
}

/** Every table has a text of its own that nobody knows yet, and there is a message that nobody knows. */
export function next(files) {
  const later = changed(files, (_, body) => `${body}\n  later:string (id: ${Math.max(...fieldsOf(body).map(id)) + 1});`);
  const envelope = later["/envelope.fbs"].replace(UNION, "$1$2, Novelty$3");
  return { ...later, "/envelope.fbs": envelope.replace("union SchedulerMessage", "table Novelty { text:string (id: 0); }\n\n$&") };
}

/** What came last is not there yet. `removed` gets the names: of tables, and of their fields. */
export function previous(files, removed) {
  const before = changed(files, (table, body) => {
    // Two fields make a pair: the one is nothing without the other.
    if (fieldsOf(body).length <= 2 || FRAME.includes(table)) return body;
    const newest = fieldsOf(body).reduce((one, other) => (id(one) > id(other) ? one : other));
    removed[table] = newest.split(":")[0];
    return body.replace(newest, "");
  });
  const newest = (messages) => messages.slice(0, messages.lastIndexOf(","));
  const without = (_, open, messages, close) => open + newest(messages) + close;
  return { ...before, "/envelope.fbs": before["/envelope.fbs"].replace(UNION, without) };
}
