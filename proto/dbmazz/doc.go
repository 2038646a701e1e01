// Package dbmazz is the gRPC contract of the service: dbmazz.proto and the Go code
// generated from it.
//
// Names and numbers below 100 are those of the original dbmazz, so that its clients
// and grpcurl lines keep working; what this version adds has numbers from 100 up.
// Numbers are never reused or renumbered.
package dbmazz

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate .. --template ../buf.gen.yaml --output ..
