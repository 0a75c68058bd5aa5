// Command kindcheck reads configurations of kind clusters as kind itself does, and prints what kind
// makes of them as JSON. It ends with an error for what kind would refuse.
//
// kind keeps its reader to itself (an internal package), so this module's path stands below kind's.
package main

import (
	"encoding/json"
	"log"
	"os"

	"sigs.k8s.io/kind/pkg/internal/apis/config"
	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
)

func main() {
	log.SetFlags(0)
	read := map[string]*config.Cluster{}
	for _, path := range os.Args[1:] {
		found, err := encoding.Load(path)
		if err != nil {
			log.Fatalf("%s: %v", path, err)
		}
		if err := found.Validate(); err != nil {
			log.Fatalf("%s: %v", path, err)
		}
		read[path] = found
	}
	if err := json.NewEncoder(os.Stdout).Encode(read); err != nil {
		log.Fatal(err)
	}
}
