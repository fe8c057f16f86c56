package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What a pod finds around it: a name server that knows one name, and behind it an API server that allows nothing but
// making the Secret without which no controller starts.
const (
	apiName    = "kubernetes.default.svc"
	apiAddress = "127.0.0.2"
	nameServer = "127.0.0.3"
	token      = "token-of-the-pod"
	secrets    = "/api/v1/namespaces/headroom/secrets"
)

type apiServer struct {
	// ca is the certificate that it is trusted by, PEM.
	ca string
	// asked has a path for every request that came with the service account's token.
	asked chan string
}

func serveAPI(t *testing.T) apiServer {
	t.Helper()
	authority, signer := certificate(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	leaf, key := certificate(t, &x509.Certificate{DNSNames: []string{apiName}}, authority, signer)
	server := apiServer{
		ca:    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})),
		asked: make(chan string, 1000),
	}
	identity := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	listener, err := tls.Listen("tcp", apiAddress+":443", &tls.Config{Certificates: []tls.Certificate{identity}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if request.Header.Get("Authorization") == "Bearer "+token {
			select {
			case server.asked <- request.URL.Path:
			default:
			}
		}
		answer.Header().Set("Content-Type", "application/json")
		switch request.Method + " " + request.URL.Path {
		case "GET " + secrets + "/headroom-controller-ca":
			refuse(answer, http.StatusNotFound, "NotFound")
		case "POST " + secrets:
			answer.WriteHeader(http.StatusCreated)
			_, _ = io.Copy(answer, request.Body)
		default:
			refuse(answer, http.StatusForbidden, "Forbidden")
		}
	}))
	return server
}

func refuse(answer http.ResponseWriter, code int, reason string) {
	answer.WriteHeader(code)
	fmt.Fprintf(answer, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"message":"nothing is allowed here","code":%d}`, reason, code)
}

// certificate fills in the rest of a template and has it signed by the issuer, or by itself where there is none.
func certificate(t *testing.T, template, issuer *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test", SerialNumber: rand.Text()}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if issuer == nil {
		issuer, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// serveNames answers for the API server's name, and that there is no other.
func serveNames(t *testing.T) {
	t.Helper()
	socket, err := net.ListenPacket("udp4", nameServer+":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	go func() {
		packet := make([]byte, 4096)
		for {
			length, client, err := socket.ReadFrom(packet)
			if err != nil {
				return
			}
			if answer, err := resolve(packet[:length]); err == nil {
				_, _ = socket.WriteTo(answer, client)
			}
		}
	}()
}

func resolve(packet []byte) ([]byte, error) {
	var query dnsmessage.Message
	if err := query.Unpack(packet); err != nil {
		return nil, err
	}
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true}, Questions: query.Questions}
	for _, question := range query.Questions {
		if question.Name.String() != apiName+"." {
			answer.RCode = dnsmessage.RCodeNameError
			continue
		}
		if question.Type == dnsmessage.TypeA {
			header := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: 1}
			body := &dnsmessage.AResource{A: netip.MustParseAddr(apiAddress).As4()}
			answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: header, Body: body})
		}
	}
	return answer.Pack()
}

// log is the output of a process, to be read while it grows.
type log struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(part []byte) (int, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.Write(part)
}

func (l *log) String() string {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.String()
}
