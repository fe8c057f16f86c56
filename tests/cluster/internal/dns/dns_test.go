package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

func aPod(name, ip string, ready v1.ConditionStatus, labels map[string]string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, Labels: labels},
		Status:     v1.PodStatus{PodIP: ip, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: ready}}},
	}
}

// knowing gives services s and early (which publishes what is not ready) with the pods behind both.
func knowing(t *testing.T, pods ...*v1.Pod) services {
	t.Helper()
	indexer := func() cache.Indexer {
		return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
	known, running := indexer(), indexer()
	selector := map[string]string{"app": "s"}
	for name, early := range map[string]bool{"s": false, "early": true} {
		service := &v1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name},
			Spec:       v1.ServiceSpec{Selector: selector, PublishNotReadyAddresses: early},
		}
		if err := known.Add(service); err != nil {
			t.Fatal(err)
		}
	}
	for _, pod := range pods {
		if err := running.Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	return services{listers.NewServiceLister(known), listers.NewPodLister(running)}
}

// ask gives the addresses of a reply, and the reply.
func ask(t *testing.T, known services, name string, kind dnsmessage.Type, most int) ([]string, dnsmessage.Message) {
	t.Helper()
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	packed, err := question.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := known.answer(packed, most)
	if err != nil {
		t.Fatal(err)
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(answer); err != nil {
		t.Fatal(err)
	}
	if reply.ID != 7 || !reply.Response || len(reply.Questions) != 1 {
		t.Fatalf("%+v is no reply to %s", reply.Header, name)
	}
	var found []string
	for _, one := range reply.Answers {
		found = append(found, netip.AddrFrom4(one.Body.(*dnsmessage.AResource).A).String())
	}
	return found, reply
}

func TestAServiceIsItsReadyPodsAndNothingElseHasAName(t *testing.T) {
	ours, theirs := map[string]string{"app": "s"}, map[string]string{"app": "x"}
	leaving := aPod("leaving", "127.9.0.5", v1.ConditionTrue, ours)
	leaving.DeletionTimestamp = &metav1.Time{}
	known := knowing(t,
		aPod("b", "127.9.0.10", v1.ConditionTrue, ours), aPod("a", "127.9.0.2", v1.ConditionTrue, ours),
		aPod("late", "127.9.0.4", v1.ConditionFalse, ours), aPod("other", "127.9.0.6", v1.ConditionTrue, theirs), leaving)
	for name, want := range map[string][]string{
		"s.n.svc.cluster.local.": {"127.9.0.2", "127.9.0.10"},
		"S.N.svc.":               {"127.9.0.2", "127.9.0.10"},
		"early.n.svc.":           {"127.9.0.2", "127.9.0.4", "127.9.0.5", "127.9.0.10"},
		"absent.n.svc.":          nil,
	} {
		if found, reply := ask(t, known, name, dnsmessage.TypeA, datagramBytes); reply.RCode != dnsmessage.RCodeSuccess || !slices.Equal(found, want) {
			t.Errorf("%s is %v (%s), not %v", name, found, reply.RCode, want)
		}
	}
	if found, reply := ask(t, known, "s.n.svc.", dnsmessage.TypeAAAA, datagramBytes); reply.RCode != dnsmessage.RCodeSuccess || len(found) != 0 {
		t.Errorf("version 6: %v, %s", found, reply.RCode)
	}
	if _, reply := ask(t, known, "example.org.", dnsmessage.TypeA, datagramBytes); reply.RCode != dnsmessage.RCodeNameError {
		t.Errorf("a foreign name: %s", reply.RCode)
	}
	if _, err := known.answer([]byte("nonsense"), datagramBytes); err == nil {
		t.Error("nonsense was answered")
	}
}

func TestALongAnswerIsCutOff(t *testing.T) {
	var pods []*v1.Pod
	for i := range 100 {
		pods = append(pods, aPod(fmt.Sprint("p", i), fmt.Sprint("127.9.1.", i), v1.ConditionTrue, map[string]string{"app": "s"}))
	}
	known := knowing(t, pods...)
	if found, reply := ask(t, known, "s.n.svc.", dnsmessage.TypeA, datagramBytes); !reply.Truncated || len(found) != 0 {
		t.Errorf("over UDP: %d addresses", len(found))
	}
	if found, reply := ask(t, known, "s.n.svc.", dnsmessage.TypeA, 1<<16-1); reply.Truncated || len(found) != 100 {
		t.Errorf("over TCP: %d addresses", len(found))
	}
}

func TestTheAddressIsOneThatNoPodGets(t *testing.T) {
	if address := Address(netip.MustParsePrefix("127.9.0.0/16")); address != "127.9.0.1:5353" {
		t.Fatal(address)
	}
}
