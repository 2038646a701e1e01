// Package apply takes frames from the stream, and batches of changes to a sink.
//
// The promise: a change is acknowledged only after the sink has committed it, and the
// effect of any redelivery, retry, crash or takeover is that of applying each change
// once and in order.
package apply
