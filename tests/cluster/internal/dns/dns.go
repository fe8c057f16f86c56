// Package dns is the cluster's name server: the name of a Service resolves to the addresses of its Ready pods. There is no virtual
// address behind which they could be, so every Service looks headless. It reads the pods themselves, because the API refuses loopback
// addresses in EndpointSlices.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

const (
	// ttl of every answer, in seconds: pods come and go quickly in tests.
	ttl = 1
	// port is above those that need privileges.
	port = 5353
	// datagramBytes is the longest answer over UDP; what is longer is to be asked for again over TCP.
	datagramBytes = 512
	// idle is the time after which a silent TCP connection is closed.
	idle = 10 * time.Second
)

// Address of the name server of the cluster with these pods: the one address of the range that no pod gets.
func Address(pods netip.Prefix) string {
	return netip.AddrPortFrom(pods.Masked().Addr().Next(), port).String()
}

// services knows the Services and the pods behind them.
type services struct {
	services listers.ServiceLister
	pods     listers.PodLister
}

// Serve answers at address (UDP and TCP) until the context ends.
func Serve(ctx context.Context, client kubernetes.Interface, address string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	known := services{factory.Core().V1().Services().Lister(), factory.Core().V1().Pods().Lister()}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	packets, err := net.ListenPacket("udp4", address)
	if err != nil {
		return err
	}
	defer packets.Close()
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	defer listener.Close()
	ended := make(chan error, 2)
	go func() { ended <- known.serveDatagrams(packets) }()
	go func() { ended <- known.serveConnections(listener) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func (s services) serveDatagrams(packets net.PacketConn) error {
	question := make([]byte, 1<<16)
	for {
		n, from, err := packets.ReadFrom(question)
		if err != nil {
			return err
		}
		if reply, err := s.answer(question[:n], datagramBytes); err == nil {
			// A client that is gone needs no answer.
			_, _ = packets.WriteTo(reply, from)
		}
	}
}

func (s services) serveConnections(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			for s.serveOne(connection) == nil {
			}
		}()
	}
}

// serveOne answers one question on a connection, where each message has its length in front.
func (s services) serveOne(connection net.Conn) error {
	if err := connection.SetDeadline(time.Now().Add(idle)); err != nil {
		return err
	}
	var length uint16
	if err := binary.Read(connection, binary.BigEndian, &length); err != nil {
		return err
	}
	question := make([]byte, length)
	if _, err := io.ReadFull(connection, question); err != nil {
		return err
	}
	reply, err := s.answer(question, 1<<16-1)
	if err != nil {
		return err
	}
	_, err = connection.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	return err
}

// answer gives the reply to a message of one question, cut off where it would be longer than most bytes.
func (s services) answer(message []byte, most int) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil {
		return nil, err
	}
	asked, err := parser.Question()
	if err != nil {
		return nil, err
	}
	if header.Response {
		return nil, errors.New("a reply is no question")
	}
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, OpCode: header.OpCode, RecursionDesired: header.RecursionDesired,
		},
		Questions: []dnsmessage.Question{asked},
	}
	namespace, service, found := split(asked.Name.String())
	if !found {
		reply.RCode = dnsmessage.RCodeNameError
	} else if asked.Type == dnsmessage.TypeA {
		for _, address := range s.addresses(namespace, service) {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET, TTL: ttl},
				Body:   &dnsmessage.AResource{A: address.As4()},
			})
		}
	}
	packed, err := reply.Pack()
	if err == nil && len(packed) > most {
		reply.Answers, reply.Truncated = nil, true
		return reply.Pack()
	}
	return packed, err
}

// split takes <service>.<namespace>.svc[.cluster.local]. apart.
func split(name string) (namespace, service string, found bool) {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(name), "."), ".cluster.local")
	parts := strings.Split(name, ".")
	if len(parts) != 3 || parts[2] != "svc" {
		return "", "", false
	}
	return parts[1], parts[0], true
}

// addresses of the Service's pods that are Ready and not about to end, in order.
func (s services) addresses(namespace, name string) []netip.Addr {
	service, err := s.services.Services(namespace).Get(name)
	if err != nil || len(service.Spec.Selector) == 0 {
		return nil
	}
	pods, err := s.pods.Pods(namespace).List(labels.SelectorFromSet(service.Spec.Selector))
	if err != nil {
		return nil
	}
	var all []netip.Addr
	for _, pod := range pods {
		ready := podutil.IsPodReady(pod) && pod.DeletionTimestamp == nil || service.Spec.PublishNotReadyAddresses
		if address, err := netip.ParseAddr(pod.Status.PodIP); err == nil && ready && address.Is4() && !ended(pod) {
			all = append(all, address)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

func ended(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}
