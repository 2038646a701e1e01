// Package check reads the deployment files the way their own tools do, and fails on a word that those do not know.
// It is a module of its own so that Docker's and Kubernetes' libraries stay out of the service.
package check
