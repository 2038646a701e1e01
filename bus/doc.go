// Package bus keeps the frames that capture makes until apply has committed them, in
// order and each once, in a JetStream stream; and beside it a bucket with the state of
// both. It never looks into a row.
//
// # Promise
//
// A frame that was reported as stored survives the death of the process at any
// instruction and, with the embedded server, the loss of power: every message is
// synced before it is acknowledged. A consumer gets all frames after the place it
// names, in the order in which they were published, or an error that says what is
// missing; never a gap, a duplicate or another writer's frame in between. A full
// stream or disk holds the publisher back; nothing is discarded to make room. What
// apply has not acknowledged is never purged.
//
// # Mechanism
//
// The server runs inside the process, over Config.DataDir, which is locked. Other
// processes reach it through a socket in that folder (Config.Attach), or over TCP if
// Config.Listen says so; all of them, and the process itself, authenticate with the
// folder's key, see KeyFile. Config.URL names servers of somebody else, or the listener
// of another dbmazz process. Stream and bucket live in the same store.
//
// Publishing is asynchronous in a window. Every message names the sequence that it
// expects to follow and the id of the message there. The sequence alone is not enough:
// with many messages under way, the second message of another writer finds the
// sequence that our first one has made true. So each message is stored in its place or
// not at all, and all trouble is met in one way: look how far the stream has got, check
// that the message there is ours, send the rest again. In a cluster, which must not be
// asked to compare ids, one message at a time is under way instead. See session.
//
// In a cluster all reads of stream and bucket go to the leader; a replica may lag behind.
// A leader that has been cut off from the others may still answer with what was true
// when that happened, for as long as it takes it to notice; nothing that is decided on
// such an answer can be written, as every write is conditional and needs the others.
//
// A frame above the server's limit travels in parts. The parts of a frame whose writer
// died stay in the stream; the next writer starts behind them with the whole frame, and
// a consumer drops them. See assembly.
//
// A consumer is made anew at each start, from the caller's own checkpoint, and pulls one
// bounded request at a time. If deliveries are lost it is made again behind what is
// acknowledged; what was delivered before is dropped. See Consumer and puller.
//
// # Failures
//
//   - The process dies: the stream has what was stored, perhaps more that was under
//     way. Capture reads Tail and goes on behind it.
//   - The store lost its end (torn write): the server starts with a shorter stream, or
//     with the lost sequences used up. Tail is the last complete frame that can be read;
//     capture sends what is missing again. A consumer that was further than the stream's
//     end gets a LostTailError. As the same sequence can hold other content afterwards,
//     a checkpoint's position counts, not its sequence: Locate finds where to start, and
//     apply compares each frame's Prev with its position.
//   - The store has a hole (damage): Consumer answers with a GapError when it gets there.
//   - The disk is full: below Config.DiskReserve the publisher holds, so that the bucket
//     can still be written and apply can make room. If it fills all the same, the server
//     stops answering and remembers the error for ever; the bus replaces it by a fresh one
//     over the same files and goes on when there is space.
//   - The stream or the bucket is not there although it must be, or is another: each holds
//     the epoch of both, and beside an embedded store there is a marker file. Open, and the
//     sessions of a bus that was open already, refuse with a StreamLostError that says what
//     to do. See prepare.go for what can be known.
//   - A server dies, hangs or is cut off: questions are asked again, of another server if
//     there is one; the connection is made again for ever. See ask.
//   - Another writer, another consumer: the one that was there first, or wakes up late,
//     gets ErrFenced.
//
// Headers of the messages show positions, LSNs and counts to the ordinary nats tool; see
// the Header constants.
package bus
