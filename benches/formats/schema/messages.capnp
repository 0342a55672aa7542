# What the other formats are given too; src/messages_capnp.rs is generated from it:
#   capnp compile -o rust:src --src-prefix schema schema/messages.capnp
@0xb4d1e6a0c7f3925d;

struct Envelope {
  version @0 :UInt16;
  timestamp @1 :UInt64;
  stream @2 :UInt32;
  sequence @3 :UInt64;
  union {
    status @4 :Status;
    numbers @5 :Numbers;
    assignment @6 :Assignment;
    log @7 :Log;
  }
}

struct Metric {
  name @0 :Text;
  value @1 :Float64;
}

struct Status {
  taskId @0 :Text;
  attempt @1 :UInt32;
  status @2 :UInt8;
  progress @3 :Float32;
  metrics @4 :List(Metric);
}

struct Numbers {
  taskId @0 :Text;
  attempt @1 :UInt32;
  status @2 :UInt8;
  progress @3 :Float32;
  metricIds @4 :List(UInt16);
  metricValues @5 :List(Float64);
}

struct KeyValue {
  key @0 :Text;
  value @1 :Text;
}

struct Assignment {
  taskId @0 :Text;
  attempt @1 :UInt32;
  agentType @2 :UInt8;
  cpu @3 :UInt32;
  memory @4 :UInt32;
  gpu @5 :UInt32;
  storage @6 :UInt32;
  storageBackend @7 :UInt8;
  timeout @8 :UInt64;
  incarnation @9 :UInt64;
  command @10 :Text;
  arguments @11 :List(Text);
  environment @12 :List(KeyValue);
  parameters @13 :Text;
  priority @14 :Int8;
  position @15 :UInt64;
  mac @16 :Data;
  killGraceMs @17 :UInt32;
  resultPath @18 :Text;
  jobKey @19 :UInt64;
}

struct Log {
  request @0 :UInt64;
  taskId @1 :Text;
  attempt @2 :UInt32;
  stream @3 :UInt8;
  offset @4 :UInt64;
  data @5 :Data;
  size @6 :UInt64;
}
