// Package bus carries frames from capture to apply through a JetStream stream.
package bus
