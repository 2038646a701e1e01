// Package api shows and steers the pipeline: the gRPC services of proto/dbmazz,
// grpc.health.v1, server reflection, and an HTTP endpoint with Prometheus metrics.
//
// The promise: what is shown is what is (rows rather than protocol messages, the lag
// behind the server's log head, the memory that the kernel counts), and nobody
// unauthorised sees or steers anything. The server listens on loopback by default; any
// other address wants a token, client certificates, or an explicit word that neither is
// meant. With a token every call must carry it, reflection included; only
// grpc.health.v1 is exempt, because probes cannot carry one and it tells no more than
// a yes or no. With a client CA every connection must show a certificate, health too.
//
// The package knows the pipeline only through the Pipeline interface and never asks
// the source, the queue or the sink itself.
package api
