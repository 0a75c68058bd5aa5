// Command flagger-router makes the writes of Flagger's own Gateway API router, without its
// controller: the Canary is an argument and no object, and nothing analyses anything.
//
// It reads one command a line from its input and answers each with a line of JSON:
//
//	reconcile            make the HTTPRoute, or mend it
//	weights PRIMARY CANARY
//	get                  what the router reads back, with its judgement of the route's status
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	flaggerv1 "github.com/fluxcd/flagger/pkg/apis/flagger/v1beta1"
	clientset "github.com/fluxcd/flagger/pkg/client/clientset/versioned"
	"github.com/fluxcd/flagger/pkg/router"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

type answer struct {
	Error   string `json:"error,omitempty"`
	Primary int    `json:"primary"`
	Canary  int    `json:"canary"`
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of the cluster")
	canaryFile := flag.String("canary", "", "the Canary, as JSON")
	flag.Parse()
	subject, canary, err := open(*kubeconfig, *canaryFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		said, _ := json.Marshal(obey(subject, canary, lines.Text()))
		fmt.Println(string(said))
	}
}

func open(kubeconfig, canaryFile string) (router.Interface, *flaggerv1.Canary, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	mesh, err := clientset.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(canaryFile)
	if err != nil {
		return nil, nil, err
	}
	canary := &flaggerv1.Canary{}
	if err := json.Unmarshal(text, canary); err != nil {
		return nil, nil, err
	}
	factory := router.NewFactory(config, kube, mesh, "", "", zap.NewNop().Sugar(), mesh, false)
	return factory.MeshRouter(flaggerv1.GatewayAPIProvider+":v1", ""), canary, nil
}

func obey(subject router.Interface, canary *flaggerv1.Canary, line string) answer {
	var word string
	var primary, canaryWeight int
	_, _ = fmt.Sscan(line, &word, &primary, &canaryWeight)
	var err error
	switch word {
	case "reconcile":
		err = subject.Reconcile(canary)
	case "weights":
		err = subject.SetRoutes(canary, primary, canaryWeight, false)
	case "get":
		primary, canaryWeight, _, err = subject.GetRoutes(canary)
	default:
		err = fmt.Errorf("no such command: %s", line)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Primary: primary, Canary: canaryWeight}
}
