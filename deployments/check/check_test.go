package check_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithWorkingDirectory("../.."))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeFileLoadsAndNamesOnlyFilesThatExist(t *testing.T) {
	t.Parallel()
	project := loadCompose(t)
	for _, name := range []string{"postgres", "starrocks", "dbmazz"} {
		service, ok := project.Services[name]
		if !ok {
			t.Fatalf("no service %s", name)
		}
		if service.HealthCheck == nil || len(service.HealthCheck.Test) == 0 {
			t.Errorf("service %s has no health check", name)
		}
		if len(service.Volumes) == 0 {
			t.Errorf("service %s has no volume", name)
		}
	}
	var files []string
	for _, service := range project.Services {
		for _, volume := range service.Volumes {
			if volume.Type == types.VolumeTypeBind {
				files = append(files, volume.Source)
			}
		}
	}
	for _, secret := range project.Secrets {
		files = append(files, secret.File)
	}
	build := project.Services["dbmazz"].Build
	files = append(files, filepath.Join(build.Context, build.Dockerfile))
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

func TestComposePortsAreOpenOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	for name, service := range loadCompose(t).Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("service %s opens port %s on %q, want 127.0.0.1", name, port.Published, port.HostIP)
			}
		}
	}
}

func TestComposeSecretsMatchWhatTheServersAreTold(t *testing.T) {
	t.Parallel()
	project := loadCompose(t)
	password := strings.TrimSpace(read(t, project.Secrets["sink_password"].File))
	if !strings.Contains(read(t, "../compose/sink.sql"), "IDENTIFIED BY '"+password+"'") {
		t.Error("sink.sql makes a user with another password than dbmazz has")
	}
	url := *project.Services["dbmazz"].Environment["SOURCE_URL"]
	_, rest, _ := strings.Cut(url, "dbmazz:")
	sourcePassword, _, _ := strings.Cut(rest, "@")
	if !strings.Contains(read(t, "../compose/source.sql"), "PASSWORD '"+sourcePassword+"'") {
		t.Error("source.sql makes a user with another password than dbmazz has")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDockerfileParsesAndEndsUnprivilegedWithAHealthCheck(t *testing.T) {
	t.Parallel()
	result, err := parser.Parse(strings.NewReader(read(t, "../Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(result.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	final := stages[len(stages)-1]
	if final.BaseName != "scratch" {
		t.Errorf("final stage is from %s, want scratch", final.BaseName)
	}
	var user string
	var health bool
	for _, command := range final.Commands {
		switch command := command.(type) {
		case *instructions.UserCommand:
			user = command.User
		case *instructions.HealthCheckCommand:
			health = slices.Contains(command.Health.Test, "health")
		}
	}
	if user != "65532:65532" || !health {
		t.Errorf("final stage: user %q, health check by dbmazz health: %t", user, health)
	}
}

// object is a new value of the Go type that Kubernetes itself reads a kind into.
func object(kind string) (any, error) {
	switch kind {
	case "apps/v1 StatefulSet":
		return new(appsv1.StatefulSet), nil
	case "v1 ConfigMap":
		return new(corev1.ConfigMap), nil
	case "v1 Secret":
		return new(corev1.Secret), nil
	case "v1 Service":
		return new(corev1.Service), nil
	case "networking.k8s.io/v1 NetworkPolicy":
		return new(networkingv1.NetworkPolicy), nil
	}
	return nil, fmt.Errorf("no Go type is known for %s", kind)
}

func TestKubernetesManifestsHaveNoUnknownField(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 5 {
		t.Fatalf("only %d manifests found", len(paths))
	}
	for _, path := range paths {
		if filepath.Base(path) == "kustomization.yaml" {
			continue
		}
		for i, document := range bytes.Split([]byte(read(t, path)), []byte("\n---\n")) {
			if err := decodeStrict(document); err != nil {
				t.Errorf("%s, document %d: %v", filepath.Base(path), i+1, err)
			}
		}
	}
}

func decodeStrict(document []byte) error {
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	into, err := object(head.APIVersion + " " + head.Kind)
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(document, into)
}

func TestUnknownFieldIsFound(t *testing.T) {
	t.Parallel()
	err := decodeStrict([]byte("apiVersion: v1\nkind: Service\nspec:\n  prots: []\n"))
	if err == nil || !strings.Contains(err.Error(), "prots") {
		t.Errorf("error %v, want one about the misspelt field", err)
	}
}

func TestKustomizationNamesEveryManifest(t *testing.T) {
	t.Parallel()
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal([]byte(read(t, "../kubernetes/kustomization.yaml")), &kustomization); err != nil {
		t.Fatal(err)
	}
	for _, name := range kustomization.Resources {
		if _, err := os.Stat(filepath.Join("../kubernetes", name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"statefulset.yaml", "service.yaml", "config.yaml", "networkpolicy.yaml"} {
		if !slices.Contains(kustomization.Resources, name) {
			t.Errorf("%s is not among the resources", name)
		}
	}
}

func TestStatefulSetKeepsTheQueueAndOneWriter(t *testing.T) {
	t.Parallel()
	var set appsv1.StatefulSet
	if err := yaml.UnmarshalStrict([]byte(read(t, "../kubernetes/statefulset.yaml")), &set); err != nil {
		t.Fatal(err)
	}
	if *set.Spec.Replicas != 1 {
		t.Errorf("%d replicas, want 1", *set.Spec.Replicas)
	}
	if set.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
		t.Error("the queue is deleted with the StatefulSet")
	}
	container := set.Spec.Template.Spec.Containers[0]
	claim := set.Spec.VolumeClaimTemplates[0].Name
	if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == claim }) {
		t.Errorf("volume %s is not mounted", claim)
	}
	for name, probe := range map[string]*corev1.Probe{
		"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe,
	} {
		if probe == nil || probe.GRPC == nil {
			t.Errorf("the %s probe does not ask grpc.health.v1", name)
		}
	}
}
