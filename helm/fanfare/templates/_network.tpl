{{/* Rules of the NetworkPolicies. */}}

{{/*
Peers and ports of host:port addresses, as one rule. Takes root, addresses, peers, ports and the
name of the setting. A NetworkPolicy knows no names: those of the cluster's Services are turned into
their namespace, other names need peers.
*/}}
{{- define "fanfare.network.backend" -}}
{{- $peers := list -}}
{{- $ports := list -}}
{{- $setting := .setting -}}
{{- range .addresses -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int64) -}}
{{- if regexMatch "^[0-9.]+$" $host -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (printf "%s/32" $host))) -}}
{{- else if contains ":" $host -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (printf "%s/128" $host))) -}}
{{- else if not (contains "." $host) -}}
{{- $peers = append $peers (dict "podSelector" dict) -}}
{{- else if regexMatch "\\.svc(\\.|$)" $host -}}
{{- $namespace := regexReplaceAll "\\.svc(\\..*)?$" $host "" | splitList "." | last -}}
{{- $peers = append $peers (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace))) -}}
{{- else if not $.peers -}}
{{- fail (printf "a NetworkPolicy knows no names, and %s is not one of a Service (name.namespace.svc): say where it is in %s, such as [{ipBlock: {cidr: 10.9.0.0/16}}], or set networkPolicy.enabled=false" $host $setting) -}}
{{- end -}}
{{- end -}}
- to:
    {{- toYaml (default (uniq $peers) .peers) | nindent 4 }}
  ports:
    {{- range default (uniq $ports) .ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- define "fanfare.network.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{- define "fanfare.network.cql" -}}
{{- with .Values.networkPolicy -}}
{{- include "fanfare.network.backend" (dict "addresses" $.Values.cql.contactPoints "peers" .cql "ports" .cqlPorts "setting" "networkPolicy.cql") -}}
{{- end -}}
{{- end }}

{{- define "fanfare.network.kafka" -}}
{{- with .Values.networkPolicy -}}
{{- include "fanfare.network.backend" (dict "addresses" $.Values.kafka.bootstrapServers "peers" .kafka "ports" .kafkaPorts "setting" "networkPolicy.kafka") -}}
{{- end -}}
{{- end }}

{{/*
Every public address, which is what Fanfare itself calls (crates/service/src/egress/addresses.rs),
and the private networks that values open.
*/}}
{{- define "fanfare.network.public" -}}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          - 0.0.0.0/8
          - 10.0.0.0/8
          - 100.64.0.0/10
          - 127.0.0.0/8
          - 168.63.129.16/32
          - 169.254.0.0/16
          - 172.16.0.0/12
          - 192.0.0.0/24
          - 192.0.2.0/24
          - 192.31.196.0/24
          - 192.52.193.0/24
          - 192.88.99.0/24
          - 192.168.0.0/16
          - 192.175.48.0/24
          - 198.18.0.0/15
          - 198.51.100.0/24
          - 203.0.113.0/24
          - 224.0.0.0/4
          - 240.0.0.0/4
    - ipBlock:
        cidr: 2000::/3
        except:
          - 2001::/23
          - 2001:db8::/32
          - 2002::/16
          - 2620:4f:8000::/48
          - 3fff::/20
    {{- range .Values.egress.allowNetworks }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
{{- end }}
