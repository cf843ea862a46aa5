{{/* The release's name, unless it says hpstudy already. */}}
{{- define "hpstudy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Selector labels of a component: include "hpstudy.selector" (list . "operator"). */}}
{{- define "hpstudy.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of a component. */}}
{{- define "hpstudy.labels" -}}
{{ include "hpstudy.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{/* An image of ours: include "hpstudy.image" (list . .Values.image). */}}
{{- define "hpstudy.image" -}}
{{ (index . 1).repository }}:{{ (index . 1).tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{/* The Secret with password and URL of the chart's PostgreSQL. */}}
{{- define "hpstudy.databaseSecret" -}}
{{ .Values.postgresql.existingSecret | default (printf "%s-postgresql" (include "hpstudy.name" .)) }}
{{- end }}

{{/* What the restricted Pod Security Standard wants of a container, and a root file system that nobody writes to. */}}
{{- define "hpstudy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
