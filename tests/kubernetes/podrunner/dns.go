package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

const (
	// dnsSelf as `--dns` makes podrunner itself the name server of its Pods.
	dnsSelf = "self"
	zone    = "cluster.local."
	// answerLife is how long an answer may be kept, in seconds.
	answerLife  = 1
	dnsDeadline = 5 * time.Second
)

// serveNames answers for names of Services below `cluster.local` at the bridge's address: A of
// cluster addresses, of a headless Service's Pods, and of those Pods by host name. Of other names
// it says that there are none.
func (r *runner) serveNames() error {
	at := net.JoinHostPort(r.network.gateway.String(), "53")
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		return fmt.Errorf("serving names: %w", err)
	}
	connections, err := net.Listen("tcp", at)
	if err != nil {
		return fmt.Errorf("serving names: %w", err)
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			size, from, err := packets.ReadFrom(buffer)
			if err != nil {
				log.Printf("names are served no more: %v", err)
				return
			}
			if answer := r.answer(buffer[:size]); answer != nil {
				_, _ = packets.WriteTo(answer, from)
			}
		}
	}()
	go func() {
		for {
			connection, err := connections.Accept()
			if err != nil {
				return
			}
			go r.answerStream(connection)
		}
	}()
	return nil
}

func (r *runner) answerStream(connection net.Conn) {
	defer connection.Close()
	for {
		_ = connection.SetDeadline(time.Now().Add(dnsDeadline))
		var size uint16
		if binary.Read(connection, binary.BigEndian, &size) != nil {
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(connection, query); err != nil {
			return
		}
		answer := r.answer(query)
		if answer == nil {
			return
		}
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := connection.Write(append(framed, answer...)); err != nil {
			return
		}
	}
}

// answer is the packed answer to a packed query; nil: it is none.
func (r *runner) answer(query []byte) []byte {
	var asked dnsmessage.Message
	if err := asked.Unpack(query); err != nil || len(asked.Questions) != 1 {
		return nil
	}
	question := asked.Questions[0]
	addresses, known := r.addressesOf(strings.ToLower(question.Name.String()))
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: asked.ID, Response: true, Authoritative: true,
			RecursionDesired: asked.RecursionDesired, RecursionAvailable: true,
		},
		Questions: asked.Questions,
	}
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	if question.Type == dnsmessage.TypeA {
		for _, address := range addresses {
			answer.Answers = append(answer.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{
					Name: question.Name, Class: dnsmessage.ClassINET, TTL: answerLife,
				},
				Body: &dnsmessage.AResource{A: address.As4()},
			})
		}
	}
	packed, err := answer.Pack()
	if err != nil {
		log.Printf("answering %s: %v", question.Name.String(), err)
		return nil
	}
	return packed
}

// addressesOf are what a name leads to, and whether there is such a name.
func (r *runner) addressesOf(name string) ([]netip.Addr, bool) {
	rest, ours := strings.CutSuffix(name, ".svc."+zone)
	if !ours {
		return nil, false
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, false
	}
	service, namespace := parts[len(parts)-2], parts[len(parts)-1]
	found, err := r.services.Services(namespace).Get(service)
	if err != nil {
		return nil, false
	}
	headless := found.Spec.ClusterIP == corev1.ClusterIPNone
	if len(parts) == 2 && !headless {
		address, err := netip.ParseAddr(found.Spec.ClusterIP)
		return []netip.Addr{address}, err == nil
	}
	if !headless {
		return nil, false
	}
	host := ""
	if len(parts) == 3 {
		host = parts[0]
	}
	addresses := r.podsBehind(namespace, service, host)
	return addresses, host == "" || len(addresses) > 0
}

// podsBehind are addresses of a Service's ready Pods, or of the one with a host name.
func (r *runner) podsBehind(namespace, service, host string) []netip.Addr {
	slices, err := r.slices.EndpointSlices(namespace).List(
		labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service}))
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			if !ptr.Deref(endpoint.Conditions.Ready, true) || host != "" && ptr.Deref(endpoint.Hostname, "") != host {
				continue
			}
			if address, err := netip.ParseAddr(endpoint.Addresses[0]); err == nil {
				found = append(found, address)
			}
		}
	}
	return found
}
